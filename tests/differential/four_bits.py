"""Weights of 4 bits: behind a DequantizeLinear, per tensor, per axis or in blocks; in MatMulNBits; and tables that are looked up."""

import numpy as np
from onnx import TensorProto, helper

import blocks

LIMITS = {TensorProto.INT4: (-8, 7), TensorProto.UINT4: (0, 15)}
SINCE = 21  # The opset from which on ONNX has them.
MS = "com.microsoft"


def packed(numbers):
    """Two in a byte, the first in the low bits."""
    flat = np.append(np.ravel(numbers), [0] * (np.size(numbers) % 2)).astype(np.int64) & 15
    return (flat[::2] | flat[1::2] << 4).astype(np.uint8)


def integers(b, kind, shape, margin=0):
    """A constant; `margin` keeps away from the ends."""
    low, high = LIMITS[kind]
    numbers = b.numpy.integers(low + margin, high + 1 - margin, shape)
    return b.stored(helper.make_tensor("", kind, shape, packed(numbers).tobytes(), raw=True))


def dequantized(b, shape, scales, **attributes):
    kind = b.random.choice(list(LIMITS))
    inputs = [integers(b, kind, shape), b.constant(scales)]
    if kind == TensorProto.UINT4 or b.chance(0.3):
        inputs.append(integers(b, kind, scales.shape, margin=5))
    return b.op("DequantizeLinear", inputs, shape, **attributes)


def per_channel(b, shape, axis, is_per_channel, size):
    """Weights with one scale, or one for each extent of `axis`; and the scales."""
    scales = (size / 4 * b.numpy.uniform(0.5, 1.5, shape[axis] if is_per_channel else ())).astype(np.float32)
    return dequantized(b, shape, scales, **({"axis": axis - b.random.choice([0, len(shape)])} if is_per_channel else {})), scales


def weights(b, shape, size):
    """Weights with one scale, with some along an axis, or with one for each block along it."""
    axis = b.random.randrange(len(shape))
    if b.chance(0.5):
        return per_channel(b, shape, axis, b.chance(0.6), size)[0]
    block = b.random.choice([2, 3, 4, 8, 16, 16, 32, shape[axis]])
    extents = [-(-extent // block) if i == axis else extent for i, extent in enumerate(shape)]
    scales = (size / 4 * b.numpy.uniform(0.5, 1.5, extents)).astype(np.float32)
    return dequantized(b, shape, scales, axis=axis - b.random.choice([0, len(shape)]), block_size=block)


def n_bits(b, x, k, n):
    """ONNX Runtime's own product, whose weights [n, blocks, bytes] come in blocks along k."""
    block = b.random.choice([16, 32])
    count = -(-k // block)
    inputs = [x, b.constant(b.numpy.integers(0, 256, (n, count, block // 2)).astype(np.uint8))]
    inputs.append(b.constant((b.numpy.uniform(0.5, 1.5, n * count) / 4 / np.sqrt(k)).astype(np.float32)))
    if b.chance(0.4):
        inputs.append(b.constant(b.numpy.integers(0, 256, n * -(-count // 2)).astype(np.uint8)))
    return b.op("MatMulNBits", inputs, (*x.shape[:-1], n), domain=MS, K=k, N=n, bits=4, block_size=block)


def matmul(b, x):
    """x times weights of 4 bits, as MatMul, Gemm or MatMulNBits; with a bias now and then."""
    k, n = x.shape[-1], b.random.choice([1, 3, 8, 16, 19])
    if b.opset < SINCE or b.chance(0.3):
        y = n_bits(b, x, k, n)
    elif len(x.shape) == 2 and b.chance(0.6):
        transposed = b.random.randint(0, 1)
        w = weights(b, (n, k) if transposed else (k, n), 1 / np.sqrt(k))
        bias = [b.floats([n], 0.3)] if b.chance(0.6) else []
        y = b.op("Gemm", [x, w, *bias], (x.shape[0], n), transB=transposed)
    else:
        y = b.op("MatMul", [x, weights(b, (k, n), 1 / np.sqrt(k))], (*x.shape[:-1], n))
    if b.chance(0.3):
        y = b.op("Add", [y, b.floats([n], 0.3)], y.shape)
    return blocks.activation(b, y) if b.chance(0.5) else y


def embedding(b, x):
    """x plus rows of a table that an input chooses."""
    words, width = b.random.choice([5, 70]), x.shape[-1]
    dtype = b.random.choice([np.int64, np.int32])
    ids = b.given(b.numpy.integers(-words, words, x.shape[:-1]).astype(dtype))
    if b.opset < SINCE or b.chance(0.3):
        table = b.floats((words, width))
    else:
        table = weights(b, (words, width), 1)
    y = b.op("Gather", [table, ids], x.shape, axis=0)
    return b.op("Add", [x, y] if b.chance(0.5) else [y, x], x.shape)


ROWS = [matmul, matmul, embedding]
