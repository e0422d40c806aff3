"""A float model with values of 16 bits, and what may be asked of its answers.

Octet computes such a model in float inside, so that in fp32 it answers what the float model answers whose constants and inputs are rounded, rounded
once at the end. ONNX Runtime is asked for that float model: it rounds every value in between.
"""

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

import octet_answers
import oracle

STEPS = {TensorProto.FLOAT16: 2.0**-10, TensorProto.BFLOAT16: 2.0**-7}  # Of a result, relative.
SMALLEST = 1e-4  # Results below it are subnormal in FP16.
KEPT = {"Resize": (1, 2)}  # Inputs that are FLOAT whatever the data are.


def rounded(array, kind):
    if kind == TensorProto.FLOAT16:
        return array.astype(np.float16).astype(np.float32)
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32).astype(np.uint64)
    bits = bits + 0x7FFF + ((bits >> 16) & 1) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32).reshape(array.shape)


def tensor(array, kind, name=""):
    """A TensorProto of an array that is rounded already."""
    if kind == TensorProto.FLOAT16:
        narrow = array.astype(np.float16)
    else:
        narrow = (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16)
    return TensorProto(name=name, data_type=kind, dims=array.shape, raw_data=narrow.tobytes())


def graphs(graph):
    """A graph and the bodies inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def pair(model, kind):
    """The model of 16 bits, and the float model of the same constants."""
    half, wide = onnx.ModelProto(), onnx.ModelProto()
    half.CopyFrom(model), wide.CopyFrom(model)
    kept = {n.input[i] for g in graphs(model.graph) for n in g.node for i in KEPT.get(n.op_type, ()) if i < len(n.input)}
    for narrow, plain in zip(half.graph.initializer, wide.graph.initializer, strict=True):
        if plain.data_type != TensorProto.FLOAT or plain.name in kept:
            continue
        array = rounded(numpy_helper.to_array(plain), kind)
        narrow.CopyFrom(tensor(array, kind, plain.name))
        plain.CopyFrom(numpy_helper.from_array(array, plain.name))
    for graph in graphs(half.graph):
        for info in [*graph.input, *graph.output]:
            tensors = (info.type.sequence_type.elem_type if info.type.HasField("sequence_type") else info.type).tensor_type
            if tensors.elem_type == TensorProto.FLOAT:
                tensors.elem_type = kind
        for node in graph.node:
            for attribute in node.attribute:
                if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = kind
    return half, wide


def folds_reals(model):
    """Whether a node reads constants alone: what it makes is rounded when it is folded, as the model says."""
    constants = {c.name for c in model.graph.initializer}
    reals = {c.name for c in model.graph.initializer if c.data_type == TensorProto.FLOAT}
    return any(reals & set(n.input) and constants >= set(filter(None, n.input)) for g in graphs(model.graph) for n in g.node)


def complaint(octet, model, inputs):
    """What is wrong with Octet's answers to the model in FLOAT16 or BFLOAT16, or None."""
    if folds_reals(model):
        return None
    for kind in STEPS:
        try:
            wrong = complaint_of(octet, model, inputs, kind)
        except octet_answers.Failed as failed:
            wrong = str(failed)
        if wrong is not None:
            return f"{TensorProto.DataType.Name(kind)}: {wrong}"
    return None


def complaint_of(octet, model, inputs, kind):
    half, wide = pair(model, kind)
    inputs = {name: rounded(array, kind) if array.dtype == np.float32 else array for name, array in inputs.items()}
    expected = oracle.answers(wide, inputs)
    narrow = {name: tensor(array, kind) if array.dtype == np.float32 else array for name, array in inputs.items()}
    octet.answers(half, narrow)  # In its own precision: it loads, runs, and answers the same twice.
    answered = octet.answers(half, narrow, precision="fp32")
    if len(list(graphs(model.graph))) > 1 or any("Sequence" in node.op_type for node in model.graph.node):
        return None  # What comes into a body or a sequence and out of it is rounded, and may decide otherwise then.
    for name, got in answered.items():
        right = expected[name].astype(np.float64)
        if got.shape != right.shape:
            return f"{name}: expected {list(right.shape)}, got {list(got.shape)}"
        with np.errstate(invalid="ignore"):
            far = np.abs(got.astype(np.float64) - right)
            allowed = STEPS[kind] * np.abs(right) + oracle.RELATIVE * np.max(np.abs(right), initial=0) + SMALLEST
        wrong = ~((far <= allowed) | oracle.same(got, rounded(expected[name], kind)))
        if np.any(wrong):
            return f"{name}: {int(np.sum(wrong))} of {wrong.size} elements differ, by up to {np.max(far[wrong]):.4g}"
    return None
