"""Pieces with sub-graphs: both branches of an If, values that a Loop carries and collects, a Scan along an axis.

Bodies read values of the graphs around them, and constants that lie there.
"""

import numpy as np
from onnx import TensorProto, helper

import blocks
from builder import Value

DEEPEST = 2


def kept(b, x):
    """Something of x's extents, a body's own nodes."""
    pieces = [blocks.activation, blocks.smooth, blocks.elementwise, blocks.broadcast_pair]
    if b.depth < DEEPEST and b.chance(0.15):
        pieces = [if_, loop]
    return b.random.choice(pieces)(b, x)


def info(value, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(value.name, dtype, [None] * len(value.shape))


def body(b, write, inputs=()):
    """The graph whose nodes `write` adds; it returns the outputs, each with its type. `inputs`: values with their types."""
    around, b.nodes = b.nodes, []
    b.depth += 1
    outputs = [(b.op("Identity", [value], value.shape), dtype) for value, dtype in write()]
    b.depth -= 1
    nodes, b.nodes = b.nodes, around
    return helper.make_graph(nodes, b.name("body"), [info(*i) for i in inputs], [info(*o) for o in outputs])


def condition(b, x):
    """A scalar that is decided by data, by extents, or in the file."""
    kind = b.random.choice(["data", "data", "extents", "constant"])
    if kind == "constant":
        return b.constant(np.bool_(b.chance(0.5)))
    if kind == "extents":
        size = b.op("Size", [x], ())
        return b.op("Greater", [size, b.constant(np.int64(b.random.randint(0, 500)))], ())
    most = b.op("ReduceMax", [x], (), keepdims=0)
    return b.op("Less", [most, b.constant(np.float32(b.random.uniform(0.5, 3.5)))], ())


def if_(b, x):
    chosen = condition(b, x)
    branches = {side: body(b, lambda: [(kept(b, x), TensorProto.FLOAT)]) for side in ("then_branch", "else_branch")}
    return b.op("If", [chosen], x.shape, **branches)


def loop(b, x):
    """Carries x, and what it was in each iteration, whose mean is added now and then."""
    trips = b.random.randint(1, 4)
    step, on, carried = Value(b.name("i"), ()), Value(b.name("on"), ()), Value(b.name("carried"), x.shape)
    collects = b.chance(0.4)
    stops = b.random.randint(1, 4)

    def write():
        y = kept(b, carried)
        if b.chance(0.5):  # A value from around the loop.
            y = b.op("Add", [b.op("Tanh", [y], y.shape), x], y.shape)
        share = b.op("Tanh", [y], y.shape)
        more = b.op("Less", [step, b.constant(np.int64(stops))], ()) if b.chance(0.5) else on
        return [(more, TensorProto.BOOL), (share, TensorProto.FLOAT)] + ([(y, TensorProto.FLOAT)] if collects else [])

    graph = body(b, write, [(step, TensorProto.INT64), (on, TensorProto.BOOL), (carried, TensorProto.FLOAT)])
    start = b.constant(np.bool_(True)) if b.chance(0.7) else None
    shapes = [x.shape] + ([(trips, *x.shape)] if collects else [])
    results = b.ops("Loop", [b.constant(np.int64(trips)), start, x], shapes, body=graph)
    if not collects:
        return results[0]
    mean = b.axes("ReduceMean", results[1], [0], x.shape, 18, keepdims=0)
    return b.op("Add", [results[0], mean], x.shape)


def scan(b, x):
    """A state that goes along axis 1, forwards or backwards; its row is put where x's was."""
    rest = (x.shape[0], *x.shape[2:])
    first = b.axes("ReduceMean", x, [1], rest, 18, keepdims=0)
    state, row = Value(b.name("state"), rest), Value(b.name("row"), rest)

    def write():
        y = b.op("Add", [b.op("Mul", [state, b.constant(np.float32(0.5))], rest), row], rest)
        y = b.op("Tanh", [y], rest)
        return [(y, TensorProto.FLOAT), (kept(b, y), TensorProto.FLOAT)]

    graph = body(b, write, [(state, TensorProto.FLOAT), (row, TensorProto.FLOAT)])
    way = {"scan_input_directions": [b.random.randint(0, 1)], "scan_output_directions": [b.random.randint(0, 1)]}
    axes = {"scan_input_axes": [1], "scan_output_axes": [1]}
    return b.ops("Scan", [first, x], [rest, x.shape], num_scan_inputs=1, body=graph, **way, **axes)[1]


ANY = [if_, loop, scan]
