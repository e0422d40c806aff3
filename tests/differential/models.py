"""A random model for every seed."""

import random

import numpy as np
from onnx import TensorProto

import blocks
import control
import quantized
from builder import Builder

MOST_ELEMENTS = 40000  # A value larger than this is reduced before anything else is computed of it.
IMAGES = {3: [(4, 12), (3, 31), (16, 7)], 4: [(3, 9, 9), (8, 6, 7), (16, 5, 5), (4, 12, 8), (32, 4, 4), (1, 14, 10), (64, 7, 7), (40, 8, 5), (3, 20, 20)], 5: [(2, 4, 5, 6), (4, 3, 3, 4)]}
ROWS = [(16,), (7,), (33,), (6, 16), (5, 8), (9, 12), (4, 32)]


def applicable(b, x, any_, images, rows):
    """Blocks that take x."""
    pieces = [(piece, 1) for piece in any_ if len(x.shape) > 1]
    if len(x.shape) in (3, 4, 5) and b.images:
        pieces += [(piece, 2) for piece in images if len(x.shape) == 4 or piece not in (blocks.depth_to_space,)]
    if len(x.shape) in (2, 3) and not b.images:
        pieces += [(piece, 3) for piece in rows if len(x.shape) == 3 or piece not in (blocks.attention, blocks.recurrent, blocks.self_product, quantized.product)]
    return pieces


def shrink_large(b, x):
    """Keeps models small: a pool or slice of what grew."""
    if np.prod(x.shape) <= MOST_ELEMENTS:
        return x
    axis = int(np.argmax(x.shape[1:])) + 1
    extent = max(1, int(x.shape[axis] * MOST_ELEMENTS // np.prod(x.shape)))
    shape = [extent if i == axis else e for i, e in enumerate(x.shape)]
    return b.op("Slice", [x, b.ints([0]), b.ints([extent]), b.ints([axis])], shape)


def float_model(b):
    values = [start(b)]
    controlled = b.chance(0.15)
    for _ in range(b.random.randint(1, 7)):
        grow(b, values, blocks.ANY + (control.ANY * 10 if controlled else []), blocks.IMAGES, blocks.ROWS)
    outputs = [values[-1]]
    if b.chance(0.3):
        outputs.append(b.random.choice(values[1:]))
    return [(v, TensorProto.FLOAT) for v in {v.name: v for v in outputs}.values()]


def start(b):
    b.images = b.chance(0.65)
    shape = b.random.choice(IMAGES[b.random.choice([3, 4, 4, 4, 4, 4, 5])]) if b.images else b.random.choice(ROWS)
    return b.input(shape)


def grow(b, values, any_, images, rows):
    """Appends what a block makes of the last value, or of an earlier one."""
    x = values[-1] if b.chance(0.85) else b.random.choice(values)
    if b.images and len(x.shape) > 2 and b.chance(0.08):
        b.images = False
        y = (blocks.flatten if b.chance(0.5) else blocks.to_rows)(b, x)
    else:
        pieces = applicable(b, x, any_, images, rows)
        y = b.random.choices([p for p, _ in pieces], [w for _, w in pieces])[0](b, x)
    y = shrink_large(b, y)
    if len(y.shape) < 3:
        b.images = False
    values.append(y)


def quantized_model(b):
    b.params = {}
    values = [quantized.mark(b, start(b), share=0.95)]
    for _ in range(b.random.randint(1, 5)):
        grow(b, values, quantized.ANY, quantized.IMAGES, quantized.ROWS)
    if b.chance(0.15):
        y = quantized.qlinear(b, quantized.mark(b, values[-1], share=1))
    else:
        y = quantized.mark(b, values[-1], share=0.7)
    if y.name in b.params and b.chance(0.2):  # The integers are the answer.
        p, q = b.params[y.name]
        return [(q, quantized.TYPES[p.dtype])]
    if b.chance(0.2):
        y = blocks.softmax(b, y)
    outputs = [(y, TensorProto.FLOAT)]
    if len(values) > 1 and b.chance(0.2) and values[-2].name not in (y.name, *(i.name for i in b.inputs)):
        outputs.append((values[-2], TensorProto.FLOAT))
    return outputs


def is_quantized(seed):
    return random.Random(seed).random() < 0.5


def model(seed):
    """The model of a seed, and its inputs by name; None when the pieces that were drawn left nothing to compute."""
    source = random.Random(seed)
    with_integers = source.random() < 0.5
    b = Builder(source, source.choice([13, 13, 17, 18, 21] if with_integers else [11, 13, 13, 17, 18, 21]))
    outputs = quantized_model(b) if with_integers else float_model(b)
    names = {i.name for i in b.inputs}
    outputs = [(v, t) for v, t in outputs if v.name not in names]
    return (b.model(outputs), dict(b.data)) if outputs else None
