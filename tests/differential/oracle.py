"""ONNX Runtime's answers, unoptimised, and how far rounding alone may carry others away from them."""

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

# Of the largest element: float sums in another order.
RELATIVE = 1e-4
ABSOLUTE = 1e-5
# What comes to a QuantizeLinear may be off by this share of its largest element, and fall to the other side of a tie.
DISTURBANCE = 3e-6
ROUNDS = (4, 16)
AVERAGES = ("AveragePool", "GlobalAveragePool", "ReduceMean")
TIED_STEPS = 4
ROUNDED = ("QuantizeLinear", "DynamicQuantizeLinear")
# Where a little before makes much behind.
ROUNDING = (*ROUNDED, "Floor", "Ceil", "Round", "Cast", "Binarizer", "TreeEnsembleRegressor", "TreeEnsembleClassifier", "LinearClassifier",
            "SVMClassifier", "SVMRegressor")  # fmt: skip
HOPELESS = 2000  # Times what is allowed: a step is less, so no tie that the first round missed makes that much.


class Refused(Exception):
    """ONNX Runtime does not run the model: the generator's mistake."""


def answers(model, inputs):
    """Outputs by name."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs)))
    except Exception as error:  # Its bindings raise a class per status code.
        raise Refused(str(error)) from error


def intermediates(model, inputs):
    """Every tensor that a node computes, by name."""
    everything = onnx.ModelProto()
    everything.CopyFrom(model)
    del everything.graph.output[:]
    for node in model.graph.node:
        everything.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name)
    return {name: value for name, value in answers(everything, inputs).items() if isinstance(value, np.ndarray)}


def own_steps(model):
    """The largest step by which an answer may be another's without a disturbance that shows it.

    Operators of the QOperator dialect have a rounding of their own. Averages of integers are ties by the hundred: what is made of
    so many that all fall to one side is not among a few disturbances.
    """
    scales = {c.name: float(np.max(numpy_helper.to_array(c), initial=0)) for c in model.graph.initializer if c.data_type == onnx.TensorProto.FLOAT}
    averages = any(node.op_type in AVERAGES for node in model.graph.node)
    kinds = [node for node in model.graph.node if node.op_type.startswith("QLinear") or (averages and node.op_type in ROUNDED)]
    return (TIED_STEPS if averages else 1) * max((scales[i] for node in kinds for i in node.input if i in scales), default=0)


def disturbed(model, inputs, values, random):
    """Outputs when what is rounded, and what comes in, is a little off."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    del other.graph.node[:]

    def noise(array):
        size = DISTURBANCE * float(np.max(np.abs(array), initial=0))
        return random.choice([-size, size], array.shape).astype(np.float32)

    for node in model.graph.node:
        known = values.get(node.input[0], inputs.get(node.input[0])) if node.op_type in ROUNDING else None
        node_ = other.graph.node.add()
        node_.CopyFrom(node)
        if known is None or known.dtype != np.float32:
            continue
        name = node.output[0] + "_disturbed"
        other.graph.initializer.append(numpy_helper.from_array(noise(known), name + "_by"))
        node_.input[0] = name
        other.graph.node.insert(len(other.graph.node) - 1, helper.make_node("Add", [node.input[0], name + "_by"], [name]))
    moved = {name: array + noise(array) if array.dtype == np.float32 else array for name, array in inputs.items()}
    return answers(other, moved)


def distance(got, low, high, step):
    """By how much the worst element lies outside of [low, high], as a multiple of what is allowed; above 1 is wrong."""
    low, high = low.astype(np.float64), high.astype(np.float64)
    finite = np.isfinite(low) & np.isfinite(high)
    size = max(np.max(np.abs(low[finite]), initial=0), np.max(np.abs(high[finite]), initial=0))
    allowed = RELATIVE * size + ABSOLUTE + (high - low) + (step if got.dtype == np.float32 else (TIED_STEPS if step > 0 else 0))
    got = got.astype(np.float64)
    with np.errstate(invalid="ignore"):
        outside = np.maximum(low - got, got - high)
    outside[~finite] = np.where(same(got[~finite], low[~finite]), 0, np.inf)
    outside[np.isnan(outside)] = np.inf
    allowed[~finite] = 1
    return float(np.max(outside / allowed, initial=0))


def same(a, b):
    return (a == b) | (np.isnan(a) & np.isnan(b))


def complaint(model, inputs, got):
    """What is wrong with these outputs, by name; None when they are right."""
    expected = answers(model, inputs)
    for name, array in expected.items():
        if got[name].dtype != array.dtype or got[name].shape != array.shape:
            return f"{name}: expected {array.dtype}{list(array.shape)}, got {got[name].dtype}{list(got[name].shape)}"
    low, high = dict(expected), dict(expected)
    values, random = None, np.random.default_rng(1)
    for rounds in (0, *ROUNDS):
        for _ in range(rounds):
            values = values or intermediates(model, inputs)
            for name, array in disturbed(model, inputs, values, random).items():
                low[name], high[name] = np.fmin(low[name], array), np.fmax(high[name], array)
        worst = {name: distance(got[name], low[name], high[name], own_steps(model)) for name in expected}
        if max(worst.values()) <= 1:
            return None
        if rounds and max(worst.values()) > HOPELESS:
            break
    name = max(worst, key=worst.get)
    with np.errstate(invalid="ignore"):
        difference = np.abs(got[name].astype(np.float64) - expected[name].astype(np.float64))
    return f"{name}: {int(np.sum(difference > 0))} of {difference.size} elements differ, by up to {np.max(difference):.4g}; {worst[name]:.3g} times what is allowed"
