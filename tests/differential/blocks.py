"""What random models are made of: pieces of networks, written in the ways in which exporters write them.

Each takes a Builder and a value (images [N, C, spatial...], or rows [N, ..., C]) and returns a value.
"""

import numpy as np

import windows


def conv(b, x):
    kernel, strides, dilations, pads, extents = windows.window(b, x)
    groups, out, shape = windows.conv_weights(b, x, kernel)
    attributes = windows.conv_attributes(b, kernel, strides, dilations, pads, groups)
    if b.chance(0.1) and all(d == 1 for d in dilations):
        attributes, extents = windows.same_pads(b, x, kernel, strides, dilations)
        attributes["group"] = groups
    inputs = [x, b.floats(shape, 1 / np.sqrt(np.prod(shape[1:])))] + ([b.floats([out], 0.3)] if b.chance(0.6) else [])
    y = b.op("Conv", inputs, (x.shape[0], out, *extents), **attributes)
    if b.chance(0.3):
        y = batch_norm(b, y)
    if b.chance(0.15):
        y = b.op("Add", [y, b.floats([out] + [1] * (len(y.shape) - 2), 0.3)], y.shape)
    return activation(b, y) if b.chance(0.6) else y


def conv_transpose(b, x):
    found = windows.transposed_window(b, x)
    if found is None:
        return x
    attributes, extents = found
    out = b.random.choice([1, 2, 5])
    w = b.floats((x.shape[1], out, *attributes["kernel_shape"]), 0.5)
    bias = [b.floats([out * attributes["group"]], 0.3)] if b.chance(0.5) else []
    y = b.op("ConvTranspose", [x, w, *bias], (x.shape[0], out * attributes["group"], *extents), **attributes)
    return activation(b, y) if b.chance(0.4) else y


def batch_norm(b, x):
    c = x.shape[1]
    return b.op("BatchNormalization", [x, b.positive([c]), b.floats([c], 0.3), b.floats([c], 0.3), b.positive([c])], x.shape)


def activation(b, x):
    return b.random.choice(ACTIVATIONS)(b, x)


def unary(op, **attributes):
    return lambda b, x: b.op(op, [x], x.shape, **attributes)


def clip(b, x):
    low, high = sorted(b.numpy.uniform(-2, 6, 2).astype(np.float32))
    ends = [b.constant(low) if b.chance(0.8) else None, b.constant(high) if b.chance(0.8) else None]
    if ends[1] is None:
        ends.pop()
    return b.op("Clip", [x, *ends], x.shape)


def relu6(b, x):
    return b.op("Clip", [x, b.constant(np.float32(0)), b.constant(np.float32(6))], x.shape)


def product(b, x, y):
    """x * y in either order."""
    return b.op("Mul", [x, y] if b.chance(0.5) else [y, x], y.shape)


def silu(b, x):
    return product(b, x, b.op("Sigmoid", [x], x.shape))


def hard_swish(b, x):
    form = b.random.randint(0, 3)
    if form == 0 and b.opset >= 14:
        return b.op("HardSwish", [x], x.shape)
    if form == 1:
        return product(b, x, b.op("HardSigmoid", [x], x.shape, alpha=1 / 6, beta=0.5))
    shifted = b.op("Add", [x, b.scalar(3)], x.shape)
    clipped = b.op("Clip", [shifted, b.constant(np.float32(0)), b.constant(np.float32(6))], x.shape)
    if b.chance(0.5):
        return b.op("Div", [product(b, x, clipped), b.scalar(6)], x.shape)
    return product(b, x, b.op("Mul", [clipped, b.scalar(1 / 6)], x.shape))


def gelu(b, x):
    if b.chance(0.5):
        inner = b.op("Erf", [b.op("Div", [x, b.scalar(np.sqrt(2))], x.shape)], x.shape)
    else:
        cube = b.op("Pow", [x, b.scalar(3)], x.shape)
        sum_ = b.op("Add", [x, b.op("Mul", [cube, b.scalar(0.044715)], x.shape)], x.shape)
        inner = b.op("Tanh", [b.op("Mul", [sum_, b.scalar(np.sqrt(2 / np.pi))], x.shape)], x.shape)
    one = b.op("Add", [inner, b.scalar(1)], x.shape)
    if b.chance(0.5):
        return b.op("Mul", [product(b, x, one), b.scalar(0.5)], x.shape)
    return product(b, b.op("Mul", [x, b.scalar(0.5)], x.shape), one)


def prelu(b, x):
    shape = [x.shape[1]] + [1] * (len(x.shape) - 2) if len(x.shape) > 2 and b.chance(0.7) else [1]
    return b.op("PRelu", [x, b.floats(shape, 0.3)], x.shape)


def mish(b, x):
    return product(b, x, b.op("Tanh", [b.op("Softplus", [x], x.shape)], x.shape))


ACTIVATIONS = [
    unary("Relu"), unary("Relu"), relu6, clip, unary("Sigmoid"), unary("Tanh"), unary("LeakyRelu", alpha=0.1), unary("Elu", alpha=0.7),
    unary("Selu"), unary("Softplus"), unary("Softsign"), unary("HardSigmoid", alpha=0.3, beta=0.4), unary("ThresholdedRelu", alpha=0.2),
    silu, silu, hard_swish, hard_swish, gelu, prelu, mish,
]  # fmt: skip


def smooth(b, x):
    """A function of each element that stays near 1 in size."""
    op = b.random.choice(["Neg", "Abs", "Sin", "Cos", "Erf", "Tanh", "Identity", "Atan", "Sqrt", "Exp", "Log", "Reciprocal", "Square"])
    if op == "Square":
        return b.op("Mul", [b.op("Tanh", [x], x.shape)] * 2, x.shape)
    if op in ("Sqrt", "Log", "Reciprocal"):
        positive = b.op("Add", [b.op("Abs", [x], x.shape), b.scalar(0.5)], x.shape)
        return b.op(op, [positive], x.shape)
    if op == "Exp":
        return b.op(op, [b.op("Tanh", [x], x.shape)], x.shape)
    return b.op(op, [x], x.shape)


def operand_shape(b, x):
    """The extents of a constant that broadcasts to x, whatever the batch."""
    shape = [1 if i == 0 or b.chance(0.5) else e for i, e in enumerate(x.shape)]
    while shape and shape[0] == 1 and b.chance(0.6):
        shape.pop(0)
    return shape


def elementwise(b, x):
    for _ in range(b.random.randint(1, 3)):
        op = b.random.choice(["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "smooth", "smooth", "activation", "Where"])
        if op == "smooth":
            x = smooth(b, x)
        elif op == "activation":
            x = activation(b, x)
        elif op == "Where":
            condition = b.constant(b.numpy.random(operand_shape(b, x)) < 0.5)
            x = b.op("Where", [condition, x, b.floats(operand_shape(b, x))], x.shape)
        elif op == "Div":
            x = b.op("Div", [x, b.positive(operand_shape(b, x))], x.shape)
        else:
            operands = [x, b.floats(operand_shape(b, x))]
            b.random.shuffle(operands)
            x = b.op(op, operands, x.shape)
    return x


def broadcast_pair(b, x):
    """x with a value of fewer extents that is computed from it."""
    axes = [i for i in range(1, len(x.shape)) if b.chance(0.5)] or [len(x.shape) - 1]
    small = b.axes("ReduceMean", x, axes, [1 if i in axes else e for i, e in enumerate(x.shape)], 18, keepdims=1)
    operands = [x, small if b.chance(0.5) else activation(b, small)]
    b.random.shuffle(operands)
    return b.op(b.random.choice(["Add", "Sub", "Mul", "Max"]), operands, x.shape)


def squeeze_excite(b, x):
    c = x.shape[1]
    s = b.op("GlobalAveragePool", [x], x.shape[:2] + (1,) * (len(x.shape) - 2))
    ones = (1,) * (len(x.shape) - 2)
    s = b.op("Relu", [b.op("Conv", [s, b.floats((2, c, *ones)), b.floats([2], 0.3)], (x.shape[0], 2, *ones))], (x.shape[0], 2, *ones))
    s = b.op("Conv", [s, b.floats((c, 2, *ones), 0.7)], (x.shape[0], c, *ones))
    s = b.op(b.random.choice(["Sigmoid", "HardSigmoid"]), [s], s.shape)
    return product(b, s, x)


def residual(b, x):
    """x plus a branch of convolutions that keeps its extents, in either order, and an activation."""
    y = x
    rank = len(x.shape) - 2
    for _ in range(b.random.randint(1, 2)):
        k = b.random.choice([1, 3])
        groups = x.shape[1] if b.chance(0.3) else 1
        w = b.floats((x.shape[1], x.shape[1] // groups, *[k] * rank), 0.7 / np.sqrt(x.shape[1] // groups * k**rank))
        y = b.op("Conv", [y, w], x.shape, pads=[k // 2] * 2 * rank, group=groups)
        if b.chance(0.4):
            y = batch_norm(b, y)
        if b.chance(0.4):
            y = activation(b, y)
    y = b.op("Add", [x, y] if b.chance(0.5) else [y, x], x.shape)
    return activation(b, y) if b.chance(0.6) else y


def concat(b, x):
    """Branches of x side by side."""
    axis = b.random.randint(1, len(x.shape) - 1)
    branches = [x] + [b.random.choice([activation, elementwise, smooth])(b, x) for _ in range(b.random.randint(1, 2))]
    b.random.shuffle(branches)
    shape = [e * len(branches) if i == axis else e for i, e in enumerate(x.shape)]
    return b.op("Concat", branches, shape, axis=axis - len(shape) if b.chance(0.2) else axis)


def split(b, x):
    """Two parts of x, changed and put together again."""
    axis = b.random.randint(1, len(x.shape) - 1)
    if x.shape[axis] < 2:
        return x
    first = b.random.randint(1, x.shape[axis] - 1)
    sizes = [first, x.shape[axis] - first]
    shapes = [[s if i == axis else e for i, e in enumerate(x.shape)] for s in sizes]
    if b.opset < 13:
        parts = b.ops("Split", [x], shapes, axis=axis, split=sizes)
    else:
        parts = b.ops("Split", [x, b.ints(sizes)], shapes, axis=axis)
    parts[b.random.randint(0, 1)] = activation(b, parts[b.random.randint(0, 1)]) if sizes[0] == sizes[1] else parts[0]
    if parts[0].shape == parts[1].shape and b.chance(0.3):
        return b.op("Mul", parts, parts[0].shape)
    extent = sum(p.shape[axis] for p in parts)
    return b.op("Concat", parts, [extent if i == axis else e for i, e in enumerate(x.shape)], axis=axis)


def channel_shuffle(b, x):
    n, c, *spatial = x.shape
    groups = b.random.choice([g for g in range(1, c + 1) if c % g == 0])
    y = b.reshape(x, [n, groups, c // groups, *spatial])
    y = b.transpose(y, [0, 2, 1, *range(3, len(spatial) + 3)])
    return b.reshape(y, x.shape)


def channels_last(b, x):
    """Something on [N, spatial..., C] between two transposes, as TensorFlow's exporters write it."""
    rank = len(x.shape)
    y = b.transpose(x, [0, *range(2, rank), 1])
    y = b.random.choice([elementwise, activation, softmax, layer_norm, pad, slice_])(b, y)
    return b.transpose(y, [0, rank - 1, *range(1, rank - 1)])


def depth_to_space(b, x):
    n, c, h, w = x.shape
    if c % 4 == 0 and b.chance(0.6):
        return b.op("DepthToSpace", [x], (n, c // 4, 2 * h, 2 * w), blocksize=2, mode=b.random.choice(["DCR", "CRD"]))
    if h % 2 == 0 and w % 2 == 0:
        return b.op("SpaceToDepth", [x], (n, 4 * c, h // 2, w // 2), blocksize=2)
    return x


def resize(b, x):
    # Whole extents: ONNX Runtime drops the fraction of what align_corners divides by, ONNX's own data does not.
    scales = [1.0, 1.0] + [b.random.choice([1.0, 2.0, 2.0, 3.0, *([0.5, 1.5] if e % 2 == 0 else [])]) for e in x.shape[2:]]
    extents = [int(e * s) for e, s in zip(x.shape, scales)]
    mode = b.random.choice(["nearest", "linear", "cubic"])
    if mode == "cubic" and len(x.shape) != 4:
        mode = "linear"
    attributes = {"mode": mode, "coordinate_transformation_mode": b.random.choice(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])}
    if mode == "nearest":
        attributes["coordinate_transformation_mode"] = b.random.choice(["asymmetric", "half_pixel"])
        attributes["nearest_mode"] = b.random.choice(["floor", "round_prefer_floor", "ceil"])
    if b.symbolic or b.chance(0.5):
        return b.op("Resize", [x, b.constant(np.zeros(0, np.float32)), b.constant(np.array(scales, np.float32))], extents, **attributes)
    skipped = None if b.opset >= 13 else b.constant(np.zeros(0, np.float32))
    return b.op("Resize", [x, skipped, skipped, b.ints(extents)], extents, **attributes)


def pad(b, x):
    before = [0] + [b.random.randint(0, 2) for _ in x.shape[1:]]
    after = [0] + [b.random.randint(0, 2) for _ in x.shape[1:]]
    mode = b.random.choice(["constant", "constant", "reflect", "edge"])
    if mode == "reflect":
        before, after = ([min(p, e - 1) for p, e in zip(pads, x.shape)] for pads in (before, after))
    extents = [e + p + q for e, p, q in zip(x.shape, before, after)]
    value = [b.constant(np.float32(0 if b.chance(0.6) else 0.5))] if mode == "constant" and b.chance(0.5) else []
    return b.op("Pad", [x, b.ints(before + after), *value], extents, mode=mode)


def slice_(b, x):
    axes = [i for i in range(1, len(x.shape)) if x.shape[i] > 1 and b.chance(0.5)]
    if not axes:
        return x
    starts, ends, steps, extents = [], [], [], list(x.shape)
    for axis in axes:
        extent = x.shape[axis]
        start, stop = sorted(b.random.sample(range(extent + 1), 2))
        step = b.random.choice([1, 1, 2])
        extents[axis] = -(-(stop - start) // step)
        if b.chance(0.15):
            start, stop, step, extents[axis] = -1, -(2**31), -1, extent
        starts.append(start), ends.append(stop if stop != extent or b.chance(0.5) else 2**31), steps.append(step)
    return b.op("Slice", [x, b.ints(starts), b.ints(ends), b.ints(axes), b.ints(steps)], extents)


def gather(b, x):
    axis = b.random.randint(1, len(x.shape) - 1)
    indices = [b.random.randint(-x.shape[axis], x.shape[axis] - 1) for _ in range(b.random.randint(1, 4))]
    return b.op("Gather", [x, b.ints(indices)], [len(indices) if i == axis else e for i, e in enumerate(x.shape)], axis=axis)


def softmax(b, x):
    axis = b.random.randint(1, len(x.shape) - 1)
    return b.op(b.random.choice(["Softmax", "Softmax", "LogSoftmax"]), [x], x.shape, axis=axis if b.chance(0.6) else axis - len(x.shape))


def layer_norm(b, x):
    c = x.shape[-1]
    scale, shift = b.positive([c]), b.floats([c], 0.3)
    if b.opset >= 17 and c > 1 and b.chance(0.5):  # ONNX Runtime refuses rows of one element.
        return b.op("LayerNormalization", [x, scale, shift][: b.random.randint(2, 3)], x.shape, axis=-1, epsilon=1e-3)
    one = (*x.shape[:-1], 1)
    centred = b.op("Sub", [x, b.axes("ReduceMean", x, [-1], one, 18, keepdims=1)], x.shape)
    square = b.op("Pow", [centred, b.scalar(2)], x.shape) if b.chance(0.5) else b.op("Mul", [centred, centred], x.shape)
    variance = b.op("Add", [b.axes("ReduceMean", square, [-1], one, 18, keepdims=1), b.scalar(1e-3)], one)
    y = b.op("Div", [centred, b.op("Sqrt", [variance], one)], x.shape)
    return b.op("Add", [product(b, scale, y), shift], x.shape)


def einsum(b, x):
    """x times weights, by itself, or summed: what networks write as an equation."""
    n = b.random.choice([3, 8])
    if b.opset < 12:
        return matmul(b, x)
    if len(x.shape) == 2:
        w = b.floats((x.shape[-1], 2, n), 1 / np.sqrt(x.shape[-1]))
        return b.reshape(b.op("Einsum", [x, w], (x.shape[0], n, 2), equation="nd,dhe->neh"), (x.shape[0], 2 * n))
    kind = b.random.choice(["weights", "weights first", "itself", "dots", "outer"])
    if kind == "weights":
        return b.op("Einsum", [x, b.floats((x.shape[-1], n), 1 / np.sqrt(x.shape[-1]))], (*x.shape[:-1], n), equation="bsd,de->bse")
    if kind == "weights first":
        return b.op("Einsum", [b.floats((n, x.shape[1]), 0.3), x], (x.shape[0], n, x.shape[2]), equation="ts,bsd->btd")
    if kind == "itself":
        y = b.op("Einsum", [x, x], (x.shape[0], x.shape[1], x.shape[1]), equation="bqd,bkd->bqk")
        return b.op("Mul", [y, b.scalar(1 / x.shape[2])], y.shape)
    if kind == "dots":
        return b.op("Einsum", [x, b.floats((x.shape[-1], n), 0.3)], (*x.shape[:-1], n), equation="...d,de->...e")
    return b.op("Einsum", [x, b.floats((x.shape[1],))], x.shape, equation="bsd,s->bsd")


def group_norm(b, x):
    c = x.shape[1]
    if b.opset < 21:
        return instance_norm(b, x)
    groups = b.random.choice([g for g in range(1, c + 1) if c % g == 0])
    return b.op("GroupNormalization", [x, b.positive([c]), b.floats([c], 0.3)], x.shape, num_groups=groups, epsilon=1e-2)


def instance_norm(b, x):
    c = x.shape[1]
    return b.op("InstanceNormalization", [x, b.positive([c]), b.floats([c], 0.3)], x.shape, epsilon=1e-2)


def matmul(b, x):
    """x times constant weights: MatMul of any rank, or Gemm of rows."""
    k, n = x.shape[-1], b.random.choice([1, 3, 8, 16, 19])
    if len(x.shape) == 2 and b.chance(0.6):
        trans = b.random.randint(0, 1)
        w = b.floats((n, k) if trans else (k, n), 1 / np.sqrt(k))
        bias = [b.floats(b.random.choice([[n], [1, n], [1], [1, 1]]), 0.3)] if b.chance(0.7) else []
        scales = {"alpha": 0.5, "beta": 1.5} if b.chance(0.2) else {}
        y = b.op("Gemm", [x, w, *bias], (x.shape[0], n), transB=trans, **scales)
    else:
        y = b.op("MatMul", [x, b.floats((k, n), 1 / np.sqrt(k))], (*x.shape[:-1], n))
        if b.chance(0.6):
            bias = b.floats(b.random.choice([[n], [1, n]]), 0.3)
            y = b.op("Add", [y, bias] if b.chance(0.5) else [bias, y], y.shape)
    return activation(b, y) if b.chance(0.5) else y


def attention(b, x):
    """Scaled dot products of [N, T, C] in heads, with a mask now and then, and the residual sum."""
    n, t, c = x.shape
    heads = b.random.choice([h for h in (1, 2, 4) if c % h == 0])
    size = c // heads

    def head(order):
        y = b.op("MatMul", [x, b.floats((c, c), 1 / np.sqrt(c))], x.shape)
        if b.chance(0.5):
            y = b.op("Add", [y, b.floats([c], 0.3)], y.shape)
        return b.transpose(b.reshape(y, [n, t, heads, size]), order)

    q, v = head([0, 2, 1, 3]), head([0, 2, 1, 3])
    if b.chance(0.5):
        k = head([0, 2, 3, 1])
    else:
        k = b.transpose(head([0, 2, 1, 3]), [0, 1, 3, 2])
    root = b.scalar(np.sqrt(size))
    if b.chance(0.3):
        q = b.op("Div", [q, root], q.shape)
    scores = b.op("MatMul", [q, k], (n, heads, t, t))
    if b.chance(0.7):
        scores = b.op("Div", [scores, root], scores.shape)
    if b.chance(0.3):
        scores = b.op("Add", [scores, b.constant(np.where(np.tri(t), 0, -1e4).astype(np.float32).reshape(1, 1, t, t))], scores.shape)
    shares = b.op("Softmax", [scores], scores.shape, axis=-1 if b.opset < 13 or b.chance(0.5) else 3)
    y = b.op("MatMul", [shares, v], (n, heads, t, size))
    y = b.reshape(b.transpose(y, [0, 2, 1, 3]), [n, t, c])
    y = b.op("MatMul", [y, b.floats((c, c), 1 / np.sqrt(c))], y.shape)
    return b.op("Add", [x, y] if b.chance(0.5) else [y, x], x.shape) if b.chance(0.7) else y


def self_product(b, x):
    """x times its own transpose: a product of two activations."""
    rank = len(x.shape)
    y = b.transpose(x, [*range(rank - 2), rank - 1, rank - 2])
    scale = b.scalar(1 / np.sqrt(x.shape[-1]))
    return b.op("Mul", [b.op("MatMul", [x, y], (*x.shape[:-1], x.shape[-2])), scale], (*x.shape[:-1], x.shape[-2]))


def reduce(b, x):
    axes = [i for i in range(1, len(x.shape)) if b.chance(0.4)] or [len(x.shape) - 1]
    op = b.random.choice(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceL1", "ReduceSumSquare", "ReduceLogSumExp"])
    shape = [1 if i in axes else e for i, e in enumerate(x.shape)]
    return b.axes(op, x, [a - len(x.shape) if b.chance(0.2) else a for a in axes], shape, 13 if op == "ReduceSum" else 18, keepdims=1)


def mean(b, x):
    """The mean over all positions, and the axes dropped."""
    if len(x.shape) < 3:
        return reduce(b, x)
    axes = list(range(2, len(x.shape)))
    kept = [e for i, e in enumerate(x.shape) if i not in axes]
    return b.axes("ReduceMean", x, axes, kept, 18, keepdims=0)


def second_input(b, x):
    """x and another input of the model, of the same extents or of some that broadcast."""
    shape = [1 if b.chance(0.3) else e for e in x.shape[1:]]
    y = b.input(shape)
    if b.chance(0.4):
        y = activation(b, y)
    operands = [x, y]
    b.random.shuffle(operands)
    return b.op(b.random.choice(["Add", "Mul", "Sub", "Max"]), operands, x.shape)


def batch_elsewhere(b, x):
    """Axis 0 moved away and back; or merged with the next, as rows of a product."""
    if len(x.shape) == 3 and b.chance(0.6):
        rows = b.reshape_free(x, [x.shape[0] * x.shape[1], x.shape[2]])
        w = b.floats((x.shape[2], 8), 1 / np.sqrt(x.shape[2]))
        y = b.op("Gemm", [rows, w, b.floats([8], 0.3)], (rows.shape[0], 8))
        return b.reshape_free(y, [x.shape[0], x.shape[1], 8])
    order = [*range(1, len(x.shape)), 0]
    y = b.random.choice([activation, smooth])(b, b.transpose(x, order))
    return b.transpose(y, [len(x.shape) - 1, *range(len(x.shape) - 1)])


def computed_weights(b, x):
    """A convolution or product whose weights, and bias, are not constants of the file but of a node, or of the input."""
    c = x.shape[1]
    scale = b.axes("ReduceMean", x, range(len(x.shape)), [1] * len(x.shape), 18, keepdims=1) if b.chance(0.5) else b.floats([1] * len(x.shape))
    if len(x.shape) < 3:
        w = b.op("Mul", [b.floats((x.shape[-1], 5), 0.3), scale], (x.shape[-1], 5))
        return b.op("MatMul", [x, w], (*x.shape[:-1], 5))
    shape = (6, c, *[1] * (len(x.shape) - 2))
    w = b.op("Mul", [b.floats(shape, 0.3), scale], shape)
    bias = b.op("Mul", [b.floats([6], 0.3), b.reshape_free(scale, [1])], (6,))
    return b.op("Conv", [x, w, bias][: b.random.randint(2, 3)], (x.shape[0], 6, *x.shape[2:]))


def movement(b, x):
    """Axes in another order, or added and taken away again."""
    if b.chance(0.5) and len(x.shape) > 2:
        order = list(range(1, len(x.shape)))
        b.random.shuffle(order)
        return b.transpose(x, [0, *order])
    axis = b.random.randint(1, len(x.shape))
    wide = b.axes("Unsqueeze", x, [axis], (*x.shape[:axis], 1, *x.shape[axis:]), 13)
    y = b.random.choice([activation, smooth])(b, wide) if b.chance(0.5) else wide
    return b.axes("Squeeze", y, [axis], x.shape, 13)


def tile(b, x):
    repeats = [1] + [b.random.choice([1, 1, 2]) for _ in x.shape[1:]]
    return b.op("Tile", [x, b.ints(repeats)], [e * r for e, r in zip(x.shape, repeats)])


def cumulate(b, x):
    axis = b.random.randint(1, len(x.shape) - 1)
    attributes = {"exclusive": b.random.randint(0, 1), "reverse": b.random.randint(0, 1)}
    return b.op("CumSum", [x, b.constant(np.array(axis, np.int64))], x.shape, **attributes)


def flatten(b, x):
    """To rows [N, C]."""
    shape = (x.shape[0], int(np.prod(x.shape[1:])))
    return b.op("Flatten", [x], shape, axis=1) if b.chance(0.5) else b.reshape(x, shape)


def to_rows(b, x):
    """[N, C, spatial...] -> [N, T, C], as transformers of images do."""
    n, c = x.shape[:2]
    y = b.reshape(x, [n, c, int(np.prod(x.shape[2:]))])
    return b.transpose(y, [0, 2, 1])


def recurrent(b, x):
    """LSTM, GRU or RNN over axis 1 of [N, T, I], as exporters of layers with the batch in front write it."""
    batch, time, width = x.shape
    kind, gates = b.random.choice([("LSTM", 4), ("GRU", 3), ("GRU", 3), ("RNN", 1)])
    hidden = b.random.choice([1, 3, 8, 17, 32])
    direction = b.random.choice(["forward", "forward", "reverse", "bidirectional"])
    d = 2 if direction == "bidirectional" else 1
    attributes = {"hidden_size": hidden, "direction": direction}
    if kind == "GRU" and b.chance(0.6):
        attributes["linear_before_reset"] = 1
    if kind == "LSTM" and b.chance(0.2):
        attributes["input_forget"] = 1
    inputs = [
        b.op("Transpose", [x], (time, batch, width), perm=[1, 0, 2]),
        b.floats((d, gates * hidden, width), width**-0.5),
        b.floats((d, gates * hidden, hidden), hidden**-0.5),
        b.floats((d, 2 * gates * hidden), 0.3) if b.chance(0.8) else None,
    ]
    states = [None, None]
    lengths = None
    if not b.symbolic:  # These have the batch's extent.
        if b.chance(0.3):
            lengths = b.constant(b.numpy.integers(1, time + 1, batch).astype(np.int32))
        states = [b.floats((d, batch, hidden), 0.5) if b.chance(0.4) else None for _ in states]
    inputs += [lengths, states[0]]
    if kind == "LSTM":
        inputs += [states[1], b.floats((d, 3 * hidden), 0.3) if b.chance(0.3) else None]
    y = b.ops(kind, inputs, [(time, d, batch, hidden)], **attributes)[0]
    return b.reshape(b.op("Transpose", [y], (batch, time, d, hidden), perm=[2, 0, 1, 3]), (batch, time, d * hidden))


def powers(b, x):
    """A pool of roots of powers, or a global one."""
    if b.chance(0.3):
        return b.op(b.random.choice(["GlobalLpPool", "GlobalMaxPool"]), [x], x.shape[:2] + (1,) * (len(x.shape) - 2))
    kernel, strides, _, pads, extents = windows.window(b, x, 3)
    extents = [windows.pool_extent(e, k, s, 1, p, q) for e, k, s, p, q in zip(x.shape[2:], kernel, strides, pads[: len(kernel)], pads[len(kernel) :])]
    y = b.op("LpPool", [x], (*x.shape[:2], *extents), kernel_shape=kernel, strides=strides, pads=pads, p=b.random.choice([1, 2]))
    return b.op("Mul", [y, b.scalar(1 / np.sqrt(np.prod(kernel)))], y.shape)


def unpool(b, x):
    """Maxima, changed, and put back where they were."""
    if len(x.shape) != 4 or min(x.shape[2:]) < 2:
        return x
    extents = [e // 2 for e in x.shape[2:]]
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    largest, places = b.ops("MaxPool", [x], [(*x.shape[:2], *extents)] * 2, **window)
    changed = b.random.choice([activation, conv_like])(b, largest)
    if x.shape[2] % 2 or x.shape[3] % 2:
        return changed
    return b.op("MaxUnpool", [changed, places], x.shape, **window)


def conv_like(b, x):
    """A convolution that keeps all extents."""
    w = b.floats((x.shape[1], x.shape[1], 1, 1), 1 / np.sqrt(x.shape[1]))
    return b.op("Conv", [x, w], x.shape)


def grid_sample(b, x):
    """Positions that a constant gives, the same for each sample."""
    if len(x.shape) != 4 or b.opset < 16 or b.symbolic:
        return x
    extents = [b.random.randint(1, 9) for _ in range(2)]
    grid = b.constant(b.numpy.uniform(-1.3, 1.3, (x.shape[0], *extents, 2)).astype(np.float32))
    mode = b.random.choice(["linear", "linear", "cubic"] if b.opset >= 20 else ["bilinear", "bilinear", "bicubic"])
    how = {"mode": mode, "padding_mode": b.random.choice(["zeros", "border", "reflection"]), "align_corners": b.random.randint(0, 1)}
    return b.op("GridSample", [x, grid], (*x.shape[:2], *extents), **how)


ANY = [elementwise, elementwise, elementwise, activation, activation, broadcast_pair, concat, concat, split, pad, slice_, gather, softmax,
       reduce, movement, movement, tile, cumulate, layer_norm, mean, second_input, batch_elsewhere, computed_weights]  # fmt: skip
IMAGES = [conv] * 10 + [residual] * 4 + [windows.pool] * 4 + [conv_transpose, conv_transpose, batch_norm, squeeze_excite, squeeze_excite, channel_shuffle,
          channels_last, channels_last, depth_to_space, resize, resize, instance_norm, group_norm, powers, unpool, grid_sample]  # fmt: skip
ROWS = [matmul] * 6 + [attention] * 3 + [recurrent] * 3 + [self_product, layer_norm, layer_norm, einsum, einsum]
