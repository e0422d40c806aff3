"""A random model for every seed."""

import random

import numpy as np
from onnx import TensorProto, helper

import blocks
import calls
import classical
import control
import four_bits
import quantized
import selection
import sequences
import transformers
import whole
from builder import Builder

MOST_ELEMENTS = 40000  # A value larger than this is reduced before anything else is computed of it.
IMAGES = {3: [(4, 12), (3, 31), (16, 7)], 4: [(3, 9, 9), (8, 6, 7), (16, 5, 5), (4, 12, 8), (32, 4, 4), (1, 14, 10), (64, 7, 7), (40, 8, 5), (3, 20, 20)], 5: [(2, 4, 5, 6), (4, 3, 3, 4)]}
THREE_AXES = (blocks.attention, blocks.recurrent, blocks.self_product, quantized.product, *transformers.ROWS)  # [N, T, C] alone.
ROWS = [(16,), (7,), (33,), (6, 16), (5, 8), (9, 12), (4, 32), (64,), (3, 96)]


def applicable(b, x, any_, images, rows):
    """Blocks that take x."""
    pieces = [(piece, 1) for piece in any_ if len(x.shape) > 1]
    if len(x.shape) in (3, 4, 5) and b.images:
        pieces += [(piece, 2) for piece in images if len(x.shape) == 4 or piece not in (blocks.depth_to_space,)]
    if len(x.shape) in (2, 3) and not b.images:
        pieces += [(piece, 3) for piece in rows if len(x.shape) == 3 or piece not in THREE_AXES]
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
    controlled, called = b.chance(0.2), b.chance(0.1)
    more = ((control.ANY + sequences.ANY) * 5 if controlled else []) + (calls.ANY * 20 if called else [])
    for _ in range(b.random.randint(1, 7)):
        grow(b, values, blocks.ANY + selection.ANY + more, blocks.IMAGES, blocks.ROWS + four_bits.ROWS + transformers.ROWS)
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
        grow(b, values, quantized.ANY, quantized.IMAGES, quantized.ROWS + four_bits.ROWS)
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


def classical_model(b):
    """Features, and a model on them; what a network makes of its scores now and then."""
    x = b.input((b.random.choice([1, 3, 5, 12]),))
    for _ in range(b.random.randint(0, 3)):
        x = b.random.choice(classical.FEATURES)(b, x)
    y = b.random.choice(classical.MODELS)(b, x)
    outputs = [y]
    if b.chance(0.3):
        outputs.append(b.random.choice(classical.MODELS)(b, x))
    if b.chance(0.2):
        outputs[0] = b.random.choice([blocks.matmul, blocks.elementwise, blocks.softmax])(b, y)
    return [(v, TensorProto.FLOAT) for v in outputs]


def whole_model(b):
    """Whole numbers, and reals that are made of them."""
    b.kinds = {}
    b.images = False
    shape = b.random.choice([*ROWS, (3, 5, 4)])
    values = [whole.start(b, shape)]
    for _ in range(b.random.randint(1, 8)):
        y = b.random.choice(whole.ANY)(b, values[-1] if b.chance(0.85) else b.random.choice(values))
        if np.prod(y.shape) <= MOST_ELEMENTS:
            values.append(y)
    y = values[-1]
    if b.chance(0.5):
        return [(y, helper.np_dtype_to_tensor_dtype(np.dtype(whole.kind_of(b, y))))]
    y = b.op("Cast", [y], y.shape, to=TensorProto.FLOAT)
    y = b.op("Mul", [y, b.scalar(0.02)], y.shape)
    return [(b.random.choice([blocks.activation, blocks.elementwise, blocks.reduce])(b, y), TensorProto.FLOAT)]


KINDS = {float_model: 42, quantized_model: 44, classical_model: 7, whole_model: 7}
OPSETS = {float_model: [11, 13, 13, 17, 18, 21, 21], quantized_model: [13, 13, 17, 18, 21, 21], classical_model: [13, 17, 18, 21],
          whole_model: [13, 17, 18, 21]}  # fmt: skip


def drawn(seed):
    """What comes first of a seed: its random numbers, and the kind of its model."""
    source = random.Random(seed)
    return source, source.choices(list(KINDS), list(KINDS.values()))[0]


def has_halves(seed):
    """Whether the model may be asked for with values of 16 bits, too."""
    return drawn(seed)[1] is float_model


def model(seed):
    """The model of a seed, and its inputs by name; None when the pieces that were drawn left nothing to compute."""
    source, kind = drawn(seed)
    b = Builder(source, source.choice(OPSETS[kind]))
    outputs = kind(b)
    names = {i.name for i in b.inputs}
    outputs = [(v, t) for v, t in outputs if v.name not in names]
    return (b.model(outputs), dict(b.data)) if outputs else None


def is_open(model):
    """Whether the batch is open."""
    return all(info.type.tensor_type.shape.dim[0].dim_param for info in model.graph.input)


def with_batch(seed, inputs, batch):
    """Inputs of other numbers, and of another batch."""
    numbers = np.random.default_rng(seed)

    def array(given):
        if given.dtype == np.float32:
            return numbers.normal(size=(batch, *given.shape[1:])).astype(np.float32)
        return numbers.permuted(np.resize(given, (batch, *given.shape[1:])), axis=0)

    return {name: array(given) for name, given in inputs.items()}
