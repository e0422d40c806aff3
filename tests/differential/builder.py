"""Writes random models: values with shapes, nodes, constants, functions. What is drawn from is in the files of pieces that models.py lists."""

import collections

import numpy as np
from onnx import TensorProto, helper, numpy_helper

Value = collections.namedtuple("Value", "name shape")
IR_VERSIONS = {11: 6, 13: 7, 17: 8, 18: 8, 21: 10}
DOMAINS = {"com.microsoft": 1, "ai.onnx.ml": 3}  # Versions; functions of the model's own are 1.


def domains(nodes):
    """Those of nodes, also in their sub-graphs; ONNX's own is ""."""
    found = {node.domain for node in nodes}
    for node in nodes:
        for attribute in node.attribute:
            found |= domains(attribute.g.node)
    return found


class Builder:
    """A model in the making. Every value is float and around 1 in size, so that no layer drowns another.

    With `symbolic` the model leaves extent 0 of its inputs open; `batch` is what it is run with.
    """

    def __init__(self, random, opset):
        self.random = random
        self.opset = opset
        self.nodes, self.constants, self.functions = [], [], []
        self.inputs, self.data = [], []
        self.symbolic = random.random() < 0.5
        self.batch = random.choice([1, 1, 2, 3, 5])
        self.numpy = np.random.default_rng(random.getrandbits(32))
        self.count = 0
        self.depth = 0  # Of graphs around the nodes that are added.

    def chance(self, share):
        return self.random.random() < share

    def name(self, prefix):
        self.count += 1
        return f"{prefix}{self.count}"

    def input(self, shape):
        """A model input of `shape` behind the batch."""
        return self.given(self.numpy.normal(size=(self.batch, *shape)).astype(np.float32))

    def given(self, array):
        """A model input that is this array, with the batch in front."""
        name, kind = self.name("input"), helper.np_dtype_to_tensor_dtype(array.dtype)
        self.inputs.append(helper.make_tensor_value_info(name, kind, [("N" if self.symbolic else self.batch), *array.shape[1:]]))
        self.data.append((name, array))
        return Value(name, array.shape)

    def constant(self, array):
        return self.stored(numpy_helper.from_array(np.asarray(array)))

    def stored(self, tensor):
        """A constant that is a TensorProto."""
        tensor.name = self.name("c")
        self.constants.append(tensor)
        return Value(tensor.name, tuple(tensor.dims))

    def floats(self, shape, size=1.0):
        return self.constant((size * self.numpy.normal(size=shape)).astype(np.float32))

    def positive(self, shape):
        return self.constant(self.numpy.uniform(0.5, 1.5, shape).astype(np.float32))

    def scalar(self, number):
        """A constant that broadcasts: of rank 0 or [1]."""
        return self.constant(np.full([1] * self.random.randint(0, 1), number, np.float32))

    def ints(self, numbers):
        return self.constant(np.array(numbers, np.int64))

    def op(self, op, inputs, shape, **attributes):
        """Adds a node of one output; `inputs` are values, None for one left out."""
        return self.ops(op, inputs, [shape], **attributes)[0]

    def ops(self, op, inputs, shapes, **attributes):
        outputs = [Value(self.name(op.lower()), tuple(int(x) for x in shape)) for shape in shapes]
        names = [i.name if i is not None else "" for i in inputs]
        self.nodes.append(helper.make_node(op, names, [o.name for o in outputs], name=f"node{len(self.nodes)}", **attributes))
        return outputs

    def axes(self, op, x, axes, shape, since, **attributes):
        """A node whose axes are an attribute before opset `since`, an input from then on."""
        if self.opset < since:
            return self.op(op, [x], shape, axes=list(axes), **attributes)
        return self.op(op, [x, self.ints(axes)], shape, **attributes)

    def reshape(self, x, shape):
        """Reshape in a way that holds for every batch when the batch is open."""
        target = list(shape)
        if x.shape[0] == shape[0] and self.chance(0.15):
            return self.op("Reshape", [x, self.computed_shape(x, shape)], shape)
        if self.symbolic or self.chance(0.3):
            if x.shape[0] == shape[0]:
                target[0] = 0
            else:
                target[0] = -1
        elif self.chance(0.3):
            target[self.random.randrange(len(target))] = -1
        return self.op("Reshape", [x, self.ints(target)], shape)

    def reshape_free(self, x, shape):
        """Reshape that mixes the batch with other axes."""
        at = 0 if self.symbolic else self.random.randrange(len(shape))
        return self.op("Reshape", [x, self.ints([-1 if i == at else e for i, e in enumerate(shape)])], shape)

    def computed_shape(self, x, shape):
        """The extents as exporters compute them: the batch of x and constants."""
        extents = self.op("Shape", [x], [len(x.shape)])
        if self.chance(0.5):
            batch = self.op("Gather", [extents, self.constant(np.array(0, np.int64))], (), axis=0)
            batch = self.axes("Unsqueeze", batch, [0], (1,), 13)
        else:
            batch = self.op("Slice", [extents, self.ints([0]), self.ints([1]), self.ints([0])], (1,))
        parts = [batch] + [self.ints([extent]) for extent in shape[1:]]
        if self.chance(0.5):
            parts = [batch, self.ints(shape[1:])]
        return self.op("Concat", parts, (len(shape),), axis=0)

    def transpose(self, x, order):
        return self.op("Transpose", [x], [x.shape[i] for i in order], perm=list(order))

    def opsets(self, nodes):
        """What nodes import."""
        others = sorted(domains(nodes) - {""})
        return [helper.make_opsetid("", self.opset)] + [helper.make_opsetid(name, DOMAINS.get(name, 1)) for name in others]

    def model(self, outputs):
        infos = [helper.make_tensor_value_info(v.name, t, ["N" if self.symbolic and i == 0 else None for i in range(len(v.shape))])
                 for v, t in outputs]
        everywhere = self.nodes + [node for function in self.functions for node in function.node]
        graph = helper.make_graph(self.nodes, "random", self.inputs, infos, self.constants)
        return helper.make_model(graph, opset_imports=self.opsets(everywhere), functions=self.functions, ir_version=IR_VERSIONS[self.opset])
