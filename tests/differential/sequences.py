"""Pieces with sequences and optional values: taken apart along an axis, changed, and put together again."""

import numpy as np
from onnx import TensorProto, helper

import blocks
import control
from builder import Value


def parts(b, x, axis):
    """A sequence of x's parts along `axis`, how many there are, and the shape of each; they are equally long."""
    extent = x.shape[axis]
    sizes = [size for size in range(1, extent + 1) if extent % size == 0 and extent // size <= 8]
    size = b.random.choice(sizes)
    shape = tuple(size if i == axis else e for i, e in enumerate(x.shape))
    split = b.constant(np.array(size, np.int64)) if b.chance(0.5) else b.ints([size] * (extent // size))
    return b.op("SplitToSequence", [x, split], (), axis=axis), extent // size, shape


def position(b, count):
    return b.constant(np.array(b.random.randint(-count, count - 1), b.random.choice([np.int64, np.int32])))


def together(b, sequence, count, shape, axis):
    """The elements side by side, or, on a new axis, one behind the other and their mean."""
    if b.chance(0.7):
        return b.op("ConcatFromSequence", [sequence], [e * count if i == axis else e for i, e in enumerate(shape)], axis=axis)
    stacked = b.op("ConcatFromSequence", [sequence], (*shape[:1], count, *shape[1:]), axis=1, new_axis=1)
    return b.axes("ReduceMean", stacked, [1], shape, 18, keepdims=0)


def taken_apart(b, x):
    """Elements are taken, left out and put in."""
    axis = b.random.randint(1, len(x.shape) - 1)
    sequence, count, shape = parts(b, x, axis)
    for _ in range(b.random.randint(0, 2)):
        kind = b.random.choice(["erase", "insert", "insert at"])
        if kind == "erase" and count > 1:
            sequence = b.op("SequenceErase", [sequence, position(b, count)], ())
            count -= 1
        elif kind != "erase":
            element = blocks.activation(b, b.op("SequenceAt", [sequence, position(b, count)], shape))
            where = [position(b, count)] if kind == "insert at" else []
            sequence = b.op("SequenceInsert", [sequence, element, *where], ())
            count += 1
    y = together(b, sequence, count, shape, axis)
    if b.chance(0.3):
        length = b.op("Cast", [b.op("SequenceLength", [sequence], ())], (), to=TensorProto.FLOAT)
        y = b.op("Div", [y, length], y.shape)
    return y


def constructed(b, x):
    """A sequence of what is computed of x."""
    values = [x] + [b.random.choice([blocks.activation, blocks.smooth])(b, x) for _ in range(b.random.randint(1, 2))]
    sequence = b.op("SequenceConstruct", values, ())
    return together(b, sequence, len(values), x.shape, b.random.randint(1, len(x.shape) - 1))


def mapped(b, x):
    """The same nodes for each element."""
    if b.opset < 17:
        return constructed(b, x)
    axis = b.random.randint(1, len(x.shape) - 1)
    sequence, count, shape = parts(b, x, axis)
    element = Value(b.name("element"), shape)
    graph = control.body(b, lambda: [(control.kept(b, element), TensorProto.FLOAT)], [(element, TensorProto.FLOAT)])
    return together(b, b.op("SequenceMap", [sequence], (), body=graph), count, shape, axis)


def collected(b, x):
    """A loop that carries a sequence and appends to it."""
    if b.opset < 13:
        return constructed(b, x)
    trips = b.random.randint(1, 3)
    step, on, carried = Value(b.name("i"), ()), Value(b.name("on"), ()), Value(b.name("carried"), ())
    around, b.nodes = b.nodes, []
    b.depth += 1
    last = b.op("SequenceAt", [carried, b.constant(np.int64(-1))], x.shape)
    more = b.op("Identity", [on], ())
    longer = b.op("SequenceInsert", [carried, control.kept(b, last)], ())
    b.depth -= 1
    nodes, b.nodes = b.nodes, around
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [None] * len(x.shape)))
    inputs = [control.info(step, TensorProto.INT64), control.info(on, TensorProto.BOOL), helper.make_value_info(carried.name, kind)]
    outputs = [control.info(more, TensorProto.BOOL), helper.make_value_info(longer.name, kind)]
    graph = helper.make_graph(nodes, b.name("body"), inputs, outputs)
    sequence = b.op("SequenceConstruct", [x], ())
    sequence = b.op("Loop", [b.constant(np.int64(trips)), None, sequence], (), body=graph)
    return together(b, sequence, trips + 1, x.shape, b.random.randint(1, len(x.shape) - 1))


def optional(b, x):
    """A value that may be absent, and what is there if it is not."""
    if b.opset < 17:
        return constructed(b, x)
    held = b.op("Optional", [x], ())
    there = b.op("OptionalHasElement", [held], ())
    branches = {
        "then_branch": control.body(b, lambda: [(control.kept(b, b.op("OptionalGetElement", [held], x.shape)), TensorProto.FLOAT)]),
        "else_branch": control.body(b, lambda: [(control.kept(b, x), TensorProto.FLOAT)]),
    }
    return b.op("If", [there], x.shape, **branches)


ANY = [taken_apart, taken_apart, constructed, mapped, collected, optional]
