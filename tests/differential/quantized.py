"""Pieces of quantized networks: QuantizeLinear and DequantizeLinear where quantizers put them, and in odder places.

A value in these functions is float, the result of a DequantizeLinear most of the time; `b.params` has its scale and zero point then.
"""

import numpy as np
from onnx import TensorProto

import blocks
import four_bits
import windows

RANGES = {np.uint8: (0, 255), np.int8: (-128, 127)}
TYPES = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}


class Params:
    """Scale and zero point of one value."""

    def __init__(self, b, scale, zero_point, dtype):
        self.scale, self.zero_point, self.dtype = np.float32(scale), int(zero_point), dtype
        self.constants = (b.constant(np.float32(scale)), b.constant(dtype(zero_point)))


def params(b, low=-3.0, high=3.0):
    """Parameters for reals of [low, high], u8 or s8, asymmetric or not, with a scale that is a power of two now and then."""
    low, high = low * b.random.uniform(0.4, 1.2), high * b.random.uniform(0.4, 1.2)
    dtype = b.random.choice([np.uint8, np.uint8, np.int8])
    first, last = RANGES[dtype]
    if b.chance(0.25):  # symmetric
        scale, zero_point = max(-low, high) / 127, (128 if dtype == np.uint8 and low < 0 else 0)
    else:
        scale = (high - low) / 255
        zero_point = int(np.clip(np.round(first - low / scale), first, last))
    if b.chance(0.15):
        scale = 2.0 ** np.round(np.log2(scale))
    return Params(b, scale, zero_point, dtype)


def quantize(b, x, p):
    scale, zero_point = p.constants
    if p.zero_point == 0 and p.dtype == np.uint8 and b.chance(0.2):
        return b.op("QuantizeLinear", [x, scale], x.shape)
    return b.op("QuantizeLinear", [x, scale, zero_point], x.shape)


def dequantize(b, q, p):
    scale, zero_point = p.constants
    inputs = [q, scale] if p.zero_point == 0 and b.chance(0.2) else [q, scale, zero_point]
    y = b.op("DequantizeLinear", inputs, q.shape)
    b.params[y.name] = (p, q)
    return y


def mark(b, x, low=-3.0, high=3.0, share=0.85):
    """x between Q and DQ; left as it is one time in a while."""
    if not b.chance(share):
        return x
    p = params(b, low, high)
    q = quantize(b, x, p)
    y = dequantize(b, q, p)
    if b.chance(0.05):  # Requantized at once.
        other = params(b, low, high)
        y = dequantize(b, quantize(b, y, other), other)
    return y


def weights(b, shape, axis, per_channel, size):
    """8-bit weights behind a DequantizeLinear, and their scales; of 4 bits now and then."""
    if b.opset >= four_bits.SINCE and b.chance(0.15):
        return four_bits.per_channel(b, shape, axis, per_channel, size)
    unsigned = b.chance(0.12)
    scales = (size / 73 * b.numpy.uniform(0.5, 1.5, shape[axis] if per_channel else ())).astype(np.float32)
    if unsigned:
        zero_points = np.full(scales.shape, 128, np.uint8) if b.chance(0.5) else b.numpy.integers(100, 156, scales.shape).astype(np.uint8)
        integers = b.numpy.integers(0, 256, shape).astype(np.uint8)
    else:
        zero_points = np.zeros(scales.shape, np.int8)
        integers = b.numpy.integers(-128 if b.chance(0.2) else -127, 128, shape).astype(np.int8)
        if b.chance(0.1):
            zero_points = b.numpy.integers(-9, 10, scales.shape).astype(np.int8)
    inputs = [b.constant(integers), b.constant(scales)]
    if zero_points.any() or b.chance(0.7):
        inputs.append(b.constant(zero_points))
    attributes = {"axis": axis if b.chance(0.7) else axis - len(shape)} if per_channel else {}
    if per_channel and axis == 1 and b.chance(0.3):
        attributes = {}  # The default.
    return b.op("DequantizeLinear", inputs, shape, **attributes), scales


def bias(b, x, weight_scales, channels):
    """Reals, or 32-bit integers in steps of input scale times weight scale."""
    if x.name not in b.params or b.chance(0.3):
        return b.floats([channels], 0.3)
    scales = (b.params[x.name][0].scale * weight_scales).astype(np.float32)
    integers = np.round(0.3 * b.numpy.normal(size=channels) / scales).astype(np.int32)
    inputs = [b.constant(integers), b.constant(scales)]
    if b.chance(0.4):
        inputs.append(b.constant(np.zeros(scales.shape, np.int32)))
    return b.op("DequantizeLinear", inputs, [channels], **({"axis": 0} if scales.ndim else {}))


def conv(b, x):
    kernel, strides, dilations, pads, extents = windows.window(b, x)
    groups, out, shape = windows.conv_weights(b, x, kernel)
    w, scales = weights(b, shape, 0, b.chance(0.6), 1 / np.sqrt(np.prod(shape[1:])))
    inputs = [x, w] + ([bias(b, x, scales, out)] if b.chance(0.7) else [])
    y = b.op("Conv", inputs, (x.shape[0], out, *extents), **windows.conv_attributes(b, kernel, strides, dilations, pads, groups))
    return finish(b, y)


def conv_transpose(b, x):
    found = windows.transposed_window(b, x)
    if found is None:
        return mark(b, x)
    attributes, extents = found
    groups, out = attributes["group"], b.random.choice([1, 2, 5])
    shape = (x.shape[1], out, *attributes["kernel_shape"])
    w, scales = weights(b, shape, 1, b.chance(0.6), 1 / np.sqrt(x.shape[1] // groups * np.prod(shape[2:])))
    inputs = [x, w] + ([bias(b, x, np.tile(scales, groups) if scales.ndim else scales, out * groups)] if b.chance(0.7) else [])
    return finish(b, b.op("ConvTranspose", inputs, (x.shape[0], out * groups, *extents), **attributes))


def finish(b, y):
    """What may come between a convolution and its Q."""
    kind = b.random.choice(["none", "none", "Relu", "relu6", "silu", "hard_swish", "any", "relu behind", "two readers"])
    if kind == "Relu":
        return mark(b, b.op("Relu", [y], y.shape), 0, 3)
    if kind == "relu6":
        return mark(b, blocks.relu6(b, y), 0, 3)
    if kind in ("silu", "hard_swish"):
        y = getattr(blocks, kind)(b, mark(b, y) if b.chance(0.4) else y)
        return mark(b, y, -0.4, 3)
    if kind == "any":
        return mark(b, blocks.activation(b, y))
    if kind == "relu behind":
        y = mark(b, y)
        return mark(b, b.op("Relu", [y], y.shape), 0, 3)
    if kind == "two readers":  # One of which reads the reals.
        return mark(b, b.op("Add", [mark(b, y), b.op("Relu", [y], y.shape)], y.shape))
    return mark(b, y)


def matmul(b, x):
    k, n = x.shape[-1], b.random.choice([1, 3, 8, 16, 19])
    per_channel = b.chance(0.6)
    if len(x.shape) == 2 and b.chance(0.6):
        trans = b.random.randint(0, 1)
        w, scales = weights(b, (n, k) if trans else (k, n), 1 - trans, per_channel, 1 / np.sqrt(k))
        inputs = [x, w] + ([bias(b, x, scales, n)] if b.chance(0.7) else [])
        y = b.op("Gemm", inputs, (x.shape[0], n), transB=trans)
    else:
        w, scales = weights(b, (k, n), 1, per_channel, 1 / np.sqrt(k))
        y = b.op("MatMul", [x, w], (*x.shape[:-1], n))
        if b.chance(0.5):
            y = mark(b, y, share=0.3)
            y = b.op("Add", [y, b.floats([n], 0.3)], y.shape)
    return finish(b, y)


def residual(b, x):
    y = x
    rank = len(x.shape) - 2
    for _ in range(b.random.randint(1, 2)):
        groups = x.shape[1] if b.chance(0.3) else 1
        k = b.random.choice([1, 3])
        shape = (x.shape[1], x.shape[1] // groups, *[k] * rank)
        w, _ = weights(b, shape, 0, b.chance(0.6), 0.7 / np.sqrt(np.prod(shape[1:])))
        y = mark(b, b.op("Conv", [y, w], x.shape, pads=[k // 2] * 2 * rank, group=groups))
    y = b.op("Add", [x, y] if b.chance(0.5) else [y, x], x.shape)
    return finish(b, y)


def concat(b, x):
    """Branches side by side; their parameters and the result's may be one."""
    axis = b.random.randint(1, len(x.shape) - 1)
    shared = params(b) if b.chance(0.5) else None

    def marked(y):
        return dequantize(b, quantize(b, y, shared), shared) if shared else mark(b, y)

    branches = [marked(b.op(op, [x], x.shape)) for op in b.random.sample(["Relu", "Neg", "Sigmoid", "Abs", "Identity"], b.random.randint(1, 2))]
    branches.append(x)
    y = b.op("Concat", branches, [e * len(branches) if i == axis else e for i, e in enumerate(x.shape)], axis=axis)
    return marked(y)


def same_params(b, x, block):
    """A block around which quantizers write the same parameters twice: movement and pooling."""
    y = block(b, x)
    if x.name in b.params and b.chance(0.7):
        p = b.params[x.name][0]
        return dequantize(b, quantize(b, y, p), p)
    return mark(b, y)


def moved(b, x):
    return same_params(b, x, b.random.choice([blocks.movement, blocks.slice_, blocks.pad, blocks.gather, blocks.tile, blocks.split]))


def pool(b, x):
    return same_params(b, x, windows.pool)


def on_integers(b, x):
    """Movement between Q and DQ, where the values are integers."""
    if x.name not in b.params:
        return mark(b, x)
    p, q = b.params[x.name]
    order = list(range(1, len(q.shape)))
    b.random.shuffle(order)
    if b.chance(0.5):
        return dequantize(b, b.transpose(q, [0, *order]), p)
    return dequantize(b, blocks.slice_(b, q), p)


def reread(b, x):
    """The same integers read by two DequantizeLinear."""
    if x.name not in b.params:
        return mark(b, x)
    p, q = b.params[x.name]
    again = dequantize(b, q, p)
    return mark(b, b.op(b.random.choice(["Add", "Mul", "Max"]), [x, blocks.activation(b, again)], x.shape))


def float_block(b, x):
    """Something that stays float, or that is quantized at its end alone."""
    return mark(b, b.random.choice(blocks.ANY)(b, x), share=0.6)


def image_block(b, x):
    if b.chance(0.3):
        return same_params(b, x, blocks.resize)
    pieces = [blocks.squeeze_excite, blocks.resize, blocks.instance_norm, blocks.channel_shuffle, blocks.channels_last, blocks.residual]
    return mark(b, b.random.choice(pieces)(b, x), share=0.7)


def softmax(b, x):
    return mark(b, blocks.softmax(b, x), 0, 1)


def product(b, x):
    """Two activations multiplied: MatMul of typed values."""
    rank = len(x.shape)
    other = b.transpose(mark(b, blocks.activation(b, x)), [*range(rank - 2), rank - 1, rank - 2])
    if b.chance(0.4):
        other = mark(b, other)
    y = b.op("MatMul", [x, other], (*x.shape[:-1], x.shape[-2]))
    if b.chance(0.5):
        y = b.op("Div", [y, b.scalar(np.sqrt(x.shape[-1]))], y.shape)
    return mark(b, y)


def qlinear(b, x):
    """An operator of the QOperator dialect on integers, ONNX's or ONNX Runtime's own; its rounding is its own, too."""
    if x.name not in b.params:
        return mark(b, x)
    p, q = b.params[x.name]
    out = Params(b, p.scale * b.random.uniform(0.5, 1.5), p.zero_point, p.dtype)
    source, result, own = [q, *p.constants], list(out.constants), {"domain": "com.microsoft"}
    kinds = ["QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearConcat"]
    kinds += ["QLinearConv", "QLinearGlobalAveragePool"] if len(x.shape) == 4 else ["QLinearMatMul"]
    kind = b.random.choice(kinds)
    if kind in ("QLinearAdd", "QLinearMul"):
        y = b.op(kind, [*source, *source, *result], x.shape, **own)
    elif kind in ("QLinearSigmoid", "QLinearLeakyRelu"):
        y = b.op(kind, [*source, *result], x.shape, **own, **({"alpha": 0.2} if kind == "QLinearLeakyRelu" else {}))
    elif kind == "QLinearConcat":
        y = b.op(kind, [*result, *source, *source], (x.shape[0], 2 * x.shape[1], *x.shape[2:]), axis=1, **own)
    elif kind == "QLinearGlobalAveragePool":
        y = b.op(kind, [*source, *result], (*x.shape[:2], 1, 1), **own)
    elif kind == "QLinearConv":
        y = qlinear_conv(b, x, source, p, result)
    else:
        k, n = x.shape[-1], b.random.choice([1, 5, 16])
        w, scale, zero_point = integer_weights(b, (k, n), np.int8 if p.dtype == np.int8 else b.random.choice([np.int8, np.uint8]))
        y = b.op(kind, [*source, w, scale, zero_point, *result], (*x.shape[:-1], n))
    return dequantize(b, y, out)


def integer_weights(b, shape, dtype):
    """Weights with one scale and zero point."""
    low, high = (-127, 128) if dtype == np.int8 else (0, 256)
    zero_point = dtype(0 if dtype == np.int8 else b.random.randint(100, 150))
    scale = np.float32(b.random.uniform(0.5, 1.5) / 73 / np.sqrt(np.prod(shape[:-1])))
    return b.constant(b.numpy.integers(low, high, shape).astype(dtype)), b.constant(scale), b.constant(zero_point)


def qlinear_conv(b, x, source, p, result):
    kernel, strides, dilations, pads, extents = windows.window(b, x)
    groups, out, shape = windows.conv_weights(b, x, kernel)
    scales = (b.numpy.uniform(0.5, 1.5, out if b.chance(0.6) else ()) / 73 / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    w = b.constant(b.numpy.integers(-127, 128, shape).astype(np.int8))
    inputs = [*source, w, b.constant(scales), b.constant(np.zeros(scales.shape, np.int8)), *result]
    if b.chance(0.6):
        inputs.append(b.constant(np.round(0.3 * b.numpy.normal(size=out) / (p.scale * scales)).astype(np.int32)))
    return b.op("QLinearConv", inputs, (x.shape[0], out, *extents), **windows.conv_attributes(b, kernel, strides, dilations, pads, groups))


def dynamic(b, x):
    """A product whose left side is quantized when it runs."""
    k, n = x.shape[-1], b.random.choice([1, 4, 16, 19])
    w, scale, zero_point = integer_weights(b, (k, n), b.random.choice([np.int8, np.uint8]))
    q, x_scale, x_zero_point = b.ops("DynamicQuantizeLinear", [x], [x.shape, (), ()])
    y = b.op("MatMulInteger", [q, w, x_zero_point, zero_point], (*x.shape[:-1], n))
    y = b.op("Cast", [y], y.shape, to=TensorProto.FLOAT)
    y = b.op("Mul", [y, b.op("Mul", [x_scale, scale], ())], y.shape)
    if b.chance(0.6):
        y = b.op("Add", [y, b.floats([n], 0.3)], y.shape)
    return blocks.activation(b, y) if b.chance(0.4) else y


def dynamic_conv(b, x):
    """A convolution of what is quantized when it runs, as dynamic quantizers write it."""
    kernel, strides, dilations, pads, extents = windows.window(b, x)
    groups, out, shape = windows.conv_weights(b, x, kernel)
    # ONNX Runtime has it for UINT8 weights alone.
    w, zero_point = b.constant(b.numpy.integers(0, 256, shape).astype(np.uint8)), b.constant(np.uint8(b.random.randint(100, 150)))
    scale = b.constant(np.float32(b.random.uniform(0.5, 1.5) / 73 / np.sqrt(np.prod(shape[1:]))))
    q, x_scale, x_zero_point = b.ops("DynamicQuantizeLinear", [x], [x.shape, (), ()])
    attributes = windows.conv_attributes(b, kernel, strides, dilations, pads, groups)
    y = b.op("ConvInteger", [q, w, x_zero_point, zero_point], (x.shape[0], out, *extents), **attributes)
    y = b.op("Cast", [y], y.shape, to=TensorProto.FLOAT)
    y = b.op("Mul", [y, b.op("Mul", [x_scale, scale], ())], y.shape)
    if b.chance(0.6):
        y = b.op("Add", [y, b.floats([out] + [1] * len(kernel), 0.3)], y.shape)
    return blocks.activation(b, y) if b.chance(0.4) else y


ANY = [concat, moved, moved, on_integers, reread, float_block, float_block, softmax]
IMAGES = [conv] * 10 + [conv_transpose] * 2 + [residual] * 4 + [pool] * 4 + [image_block] * 3 + [dynamic_conv] * 2
ROWS = [matmul] * 6 + [product] * 2 + [dynamic] * 2
