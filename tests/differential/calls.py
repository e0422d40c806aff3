"""Calls of functions that the model brings: a piece's nodes become a function's, what they read from around them its inputs."""

from onnx import AttributeProto, helper

import blocks
from builder import Value

DOMAIN = "own"
DEEPEST = 2  # Functions that call functions.


def inside(b, x):
    """What a function is made of."""
    pieces = [blocks.activation, blocks.elementwise, blocks.smooth, blocks.layer_norm, blocks.softmax, blocks.broadcast_pair, blocks.movement]
    pieces += [blocks.matmul] * (len(x.shape) in (2, 3)) + [blocks.slice_, blocks.concat, blocks.reduce]
    y = b.random.choice(pieces)(b, x)
    if b.depth < DEEPEST and b.chance(0.2):
        y = call(b, y)
    return y


def referred(b, node):
    """A float attribute of a node that becomes the function's, and what a call says of it; None where it has none."""
    for attribute in node.attribute:
        if attribute.name in ("alpha", "gamma", "epsilon") and attribute.type == AttributeProto.FLOAT:
            value = attribute.f
            attribute.CopyFrom(AttributeProto(name=attribute.name, type=AttributeProto.FLOAT, ref_attr_name="given"))
            return value
    return None


def call(b, x):
    """One piece, or two one behind the other, as a function; it is called twice now and then."""
    around, b.nodes = b.nodes, []
    b.depth += 1
    y = inside(b, x)
    if b.chance(0.4):
        y = inside(b, y)
    b.depth -= 1
    nodes, b.nodes = b.nodes, around
    if not nodes:
        return y
    made = {name for node in nodes for name in node.output}
    read = [name for node in nodes for name in node.input if name and name not in made]
    outside = [x.name, *dict.fromkeys(name for name in read if name != x.name)]
    given = next((value for value in (referred(b, node) for node in nodes) if value is not None), None) if b.chance(0.6) else None
    defaults = given is not None and b.chance(0.5)
    name = b.name("Function")
    b.functions.append(helper.make_function(
        DOMAIN, name, outside, [y.name], nodes, b.opsets(nodes), [] if given is None or defaults else ["given"],
        [helper.make_attribute("given", 0.25)] if defaults else []))  # fmt: skip
    attributes = {} if given is None or (defaults and b.chance(0.5)) else {"given": given}
    inputs = [Value(name, ()) for name in outside]
    result = b.op(name, inputs, y.shape, domain=DOMAIN, **attributes)
    if y.shape == x.shape and b.chance(0.3):
        result = b.op(name, [result, *inputs[1:]], y.shape, domain=DOMAIN, **attributes)
    return result


ANY = [call]
