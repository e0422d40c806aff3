"""Chains of operators on whole numbers of one type or several, which become reals at their end.

A value here has the type of `b.kinds`, by its name. Elements are at most LARGEST in size, or what a Cast makes of a negative one.
"""

import numpy as np
from onnx import TensorProto, helper

LARGEST = 100
TYPES = (np.int32, np.int64, np.uint8, np.int8, np.uint32, np.uint64, np.int16, np.uint16)
WIDE = (np.int32, np.int64)
# Of which ONNX Runtime has kernels on the CPU.
COMPARED = (np.int32, np.int64)
EXTREMES = (np.int32, np.int64, np.uint32, np.uint64)
SHIFTED = (np.uint8, np.uint32, np.uint64)
NEGATED = (np.int8, np.int32, np.int64)
CHOSEN = (np.int32, np.int64, np.uint8)


def kind_of(b, x):
    return b.kinds[x.name]


def result(b, op, inputs, shape, dtype, **attributes):
    y = b.op(op, inputs, shape, **attributes)
    b.kinds[y.name] = dtype
    return y


def cast(b, x, dtype):
    return result(b, "Cast", [x], x.shape, dtype, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def as_one_of(b, x, types):
    """x, or x as another type where `types` has not its own."""
    return x if kind_of(b, x) in types else cast(b, x, b.random.choice(types))


def bounded(b, x):
    """x, brought back into the range by what is left of a division."""
    return result(b, "Mod", [x, b.constant(np.array(LARGEST, kind_of(b, x)))], x.shape, kind_of(b, x))


def operand(b, x, low=-9, high=9):
    """A constant of x's type that broadcasts to it."""
    shape = [1 if i == 0 or b.chance(0.5) else e for i, e in enumerate(x.shape)]
    while shape and shape[0] == 1 and b.chance(0.6):
        shape.pop(0)
    low = max(low, 0) if np.dtype(kind_of(b, x)).kind == "u" else low
    return b.constant(b.numpy.integers(low, high + 1, shape).astype(kind_of(b, x)))


def arithmetic(b, x):
    x = as_one_of(b, x, WIDE)
    op = b.random.choice(["Add", "Sub", "Mul"])
    operands = [x, operand(b, x)]
    b.random.shuffle(operands)
    return bounded(b, result(b, op, operands, x.shape, kind_of(b, x)))


def with_itself(b, x):
    x = as_one_of(b, x, WIDE)
    return bounded(b, result(b, b.random.choice(["Add", "Mul", "Sub"]), [x, arithmetic(b, x) if b.chance(0.5) else x], x.shape, kind_of(b, x)))


def divided(b, x):
    x = as_one_of(b, x, WIDE)
    return result(b, "Div", [x, operand(b, x, 1)], x.shape, kind_of(b, x))


def remainder(b, x):
    x = as_one_of(b, x, TYPES)
    # ONNX Runtime takes the remainder of 64-bit integers for fmod in doubles.
    fmod = {"fmod": 1} if b.chance(0.3) and np.dtype(kind_of(b, x)).itemsize < 8 else {}
    return result(b, "Mod", [x, operand(b, x, 1)], x.shape, kind_of(b, x), **fmod)


def extremes(b, x):
    x = as_one_of(b, x, EXTREMES)
    return result(b, b.random.choice(["Max", "Min"]), [x, operand(b, x)], x.shape, kind_of(b, x))


def clip(b, x):
    x = as_one_of(b, x, EXTREMES)
    low = 0 if np.dtype(kind_of(b, x)).kind == "u" else -5
    ends = [b.constant(np.array(low + 2, kind_of(b, x))), b.constant(np.array(low + 40, kind_of(b, x)))]
    return result(b, "Clip", [x, *ends][: b.random.randint(2, 3)], x.shape, kind_of(b, x))


def signs(b, x):
    x = as_one_of(b, x, NEGATED)
    return result(b, b.random.choice(["Neg", "Abs", "Sign"]), [x], x.shape, kind_of(b, x))


def bits(b, x):
    if b.opset >= 18 and b.chance(0.6):
        x = as_one_of(b, x, TYPES)
        if b.chance(0.3):
            x = result(b, "BitwiseNot", [x], x.shape, kind_of(b, x))
        op = b.random.choice(["BitwiseAnd", "BitwiseOr", "BitwiseXor"])
        return bounded(b, result(b, op, [x, operand(b, x)], x.shape, kind_of(b, x)))
    x = as_one_of(b, x, SHIFTED)
    return bounded(b, result(b, "BitShift", [x, operand(b, x, 0, 3)], x.shape, kind_of(b, x), direction=b.random.choice(["LEFT", "RIGHT"])))


def chosen(b, x):
    """Where of two, by a comparison."""
    x = as_one_of(b, x, COMPARED)
    shape = x.shape
    op = b.random.choice(["Less", "Greater", "Equal", "GreaterOrEqual", "LessOrEqual"] if b.opset >= 12 else ["Less", "Greater", "Equal"])
    condition = b.op(op, [x, operand(b, x)], shape)
    if b.chance(0.3):
        condition = b.op("Not", [condition], shape)
    if b.chance(0.3):
        other = b.op("Greater", [x, operand(b, x)], shape)
        condition = b.op(b.random.choice(["And", "Or", "Xor"]), [condition, other], shape)
    if b.chance(0.2):
        b.kinds[condition.name] = np.bool_
        return cast(b, condition, b.random.choice(TYPES))
    return result(b, "Where", [condition, x, arithmetic(b, x) if kind_of(b, x) in WIDE and b.chance(0.5) else operand(b, x)], shape, kind_of(b, x))


def converted(b, x):
    return cast(b, x, b.random.choice(TYPES))


def through_reals(b, x):
    """A product with a real, cut off."""
    y = b.op("Cast", [x], x.shape, to=TensorProto.FLOAT)
    y = b.op("Mul", [y, b.constant(np.float32(b.random.choice([0.37, 0.5, 0.81])))], x.shape)
    if b.chance(0.5):
        y = b.op(b.random.choice(["Floor", "Ceil", "Round"]), [y], x.shape)
    return cast(b, y, b.random.choice(WIDE))


def moved(b, x):
    x = as_one_of(b, x, (np.int32, np.int64, np.uint8, np.int8))
    axis, shape = b.random.randint(1, len(x.shape) - 1), list(x.shape)
    kind = b.random.choice(["slice", "gather", "concat", "transpose", "tile"])
    if kind == "slice":
        shape[axis] = -(-shape[axis] // 2)
        return result(b, "Slice", [x, b.ints([0]), b.ints([2**31]), b.ints([axis]), b.ints([2])], shape, kind_of(b, x))
    if kind == "gather":
        indices = [b.random.randint(-shape[axis], shape[axis] - 1) for _ in range(3)]
        shape[axis] = 3
        return result(b, "Gather", [x, b.ints(indices)], shape, kind_of(b, x), axis=axis)
    if kind == "concat":
        shape[axis] *= 2
        return result(b, "Concat", [x, x], shape, kind_of(b, x), axis=axis)
    if kind == "tile":
        shape[axis] *= 2
        return result(b, "Tile", [x, b.ints([2 if i == axis else 1 for i in range(len(shape))])], shape, kind_of(b, x))
    order = [0, *b.random.sample(range(1, len(shape)), len(shape) - 1)]
    return result(b, "Transpose", [x], [shape[i] for i in order], kind_of(b, x), perm=order)


def reduced(b, x):
    x = as_one_of(b, x, WIDE)
    axis = b.random.randint(1, len(x.shape) - 1)
    shape = [1 if i == axis else e for i, e in enumerate(x.shape)]
    kind = b.random.choice(["ReduceSum", "ReduceMax", "ReduceMin", "ArgMax", "ArgMin", "CumSum", "ReduceMean"])
    if kind in ("ArgMax", "ArgMin"):
        return result(b, kind, [x], shape, np.int64, axis=axis, keepdims=1)
    if kind == "CumSum":
        return bounded(b, result(b, kind, [x, b.constant(np.array(axis, np.int64))], x.shape, kind_of(b, x), reverse=b.random.randint(0, 1)))
    if kind == "ReduceMean":
        x = as_one_of(b, x, (np.int32,))
    y = b.axes(kind, x, [axis], shape, 13 if kind == "ReduceSum" else 18, keepdims=1)
    b.kinds[y.name] = kind_of(b, x)
    return bounded(b, y)


def start(b, shape):
    dtype = b.random.choice(TYPES)
    low = 0 if np.dtype(dtype).kind == "u" else -LARGEST
    x = b.given(b.numpy.integers(low, LARGEST + 1, (b.batch, *shape)).astype(dtype))
    b.kinds[x.name] = dtype
    return x


ANY = [arithmetic, arithmetic, with_itself, divided, remainder, extremes, clip, signs, bits, bits, chosen, chosen, converted, through_reals,
       moved, moved, reduced]  # fmt: skip
