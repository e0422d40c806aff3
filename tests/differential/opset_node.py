"""A model of one node in a given opset, and what another runtime answers to it."""

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import numpy as np
import onnxruntime
from onnx import helper, numpy_helper

RANDOM = np.random.default_rng(3)
NEWEST_IR = {19: 9, 20: 9, 21: 10, 22: 10}  # 8 with older opsets.


def reals(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


class Const:
    """An input that is an initializer."""

    def __init__(self, array):
        self.array = np.asarray(array)


class Row:
    """One node. `inputs`: arrays that a request brings, constants, or None for what is left out."""

    def __init__(self, op, opset, inputs, outputs=1, by_reference=False, read=None, **attributes):
        """`by_reference`: ONNX Runtime answers otherwise than ONNX says, and is not asked. `read`: how many inputs the node itself
        reads; its sub-graphs read the others."""
        self.op, self.opset, self.inputs, self.outputs, self.attributes = op, opset, inputs, outputs, attributes
        self.by_reference, self.read = by_reference, len(inputs) if read is None else read

    def title(self):
        def told(x):
            if x is None:
                return "-"
            array = x.array if isinstance(x, Const) else x
            return f"{'const ' if isinstance(x, Const) else ''}{array.dtype}{list(array.shape)}"

        short = {k: v for k, v in self.attributes.items() if not isinstance(v, (onnx.GraphProto, onnx.TensorProto))}
        return f"{self.op}-{self.opset} {short} {', '.join(map(told, self.inputs))} -> {self.outputs}"

    def given(self):
        """The arrays that a request brings, by name, in order."""
        return {f"in{i}": x for i, x in enumerate(self.inputs) if isinstance(x, np.ndarray)}

    def model(self, is_open=False):
        """`is_open`: no extent of an input is in the file, but the first where they differ: such inputs have no batch."""
        names = ["" if x is None else f"in{i}" for i, x in enumerate(self.inputs)][: self.read]
        results = [f"out{i}" for i in range(self.outputs)]
        node = helper.make_node(self.op, names, results, name="tested", **self.attributes)
        infos, firsts = [], {array.shape[0] for array in self.given().values() if array.ndim}
        for name, array in self.given().items():
            shape = [f"{name}_{i}" if is_open and array.size and (i > 0 or len(firsts) == 1) else extent for i, extent in enumerate(array.shape)]
            infos.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape))
        constants = [numpy_helper.from_array(x.array, f"in{i}") for i, x in enumerate(self.inputs) if isinstance(x, Const)]
        wanted = [helper.make_empty_tensor_value_info(name) for name in results]
        graph = helper.make_graph([node], "one", infos, wanted, constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=NEWEST_IR.get(self.opset, 8))

    def expected(self):
        """ONNX Runtime's answers, or those of ONNX's own reference where it does not run the node; and whose they are."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            if self.by_reference:
                raise RuntimeError("not asked")
            session = onnxruntime.InferenceSession(self.model().SerializeToString(), options, providers=["CPUExecutionProvider"])
            return session.run(None, self.given()), "ONNX Runtime"
        except Exception:  # Its bindings raise a class per status code.
            return onnx.reference.ReferenceEvaluator(self.model()).run(None, self.given()), "onnx.reference"


class BatchFirst(Row):
    """A recurrent layer with layout 1, which ONNX Runtime and onnx.reference lack: from a row without, all arrays turned."""

    def __init__(self, op, opset, inputs, **attributes):
        super().__init__(op, opset, [x.swapaxes(0, 1).copy() if isinstance(x, np.ndarray) else x for x in inputs], **attributes, layout=1)
        self.other = Row(op, opset, inputs, **attributes)

    def expected(self):
        (y, *states), by = self.other.expected()
        return [np.ascontiguousarray(y.transpose(2, 0, 1, 3)), *(np.ascontiguousarray(s.swapaxes(0, 1)) for s in states)], by
