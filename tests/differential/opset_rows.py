"""Single nodes in the form that each version of their operator gives them, opsets 7 to 22."""

import numpy as np
from onnx import TensorProto, helper

from opset_node import BatchFirst, Const, Row, reals

F16 = np.float16
I8, U8, I16, U16, I32, I64 = np.int8, np.uint8, np.int16, np.uint16, np.int32, np.int64
EMPTY = Const(np.zeros(0, np.float32))


def ints(*numbers, dtype=I64):
    return Const(np.array(numbers, dtype))


def whole(dtype, *shape, low=-9, high=9):
    """Integers that follow from the shape alone."""
    count = int(np.prod(shape))
    return (low + np.arange(count) * 7 % (high - low + 1)).reshape(shape).astype(dtype)


def scalar(value, dtype=np.float32):
    return Const(np.array(value, dtype))


def normalized_exponentials():
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        for opset in (7, 11, 13):
            yield Row(op, opset, [reals(2, 3, 4)])  # Axis 1, of two axes, up to 12; the last one alone from 13 on.
            yield Row(op, opset, [reals(2, 3, 4)], axis=0 if opset == 7 else -2)


def axes():
    yield Row("Squeeze", 7, [reals(1, 3, 1, 2)], axes=[0, 2])
    yield Row("Squeeze", 7, [reals(1, 3, 1, 2)])
    yield Row("Squeeze", 11, [reals(1, 3, 1, 2)], axes=[-2])
    yield Row("Squeeze", 13, [reals(1, 3, 1, 2), ints(0, -2)])
    yield Row("Squeeze", 21, [whole(I32, 1, 3, 1)])
    yield Row("Unsqueeze", 7, [reals(3, 2)], axes=[0, 3])
    yield Row("Unsqueeze", 11, [reals(3, 2)], axes=[-1, 0])
    yield Row("Unsqueeze", 13, [reals(3, 2), ints(-1, 1)])
    yield Row("Unsqueeze", 21, [whole(U8, 3, 2), ints(3, 0, 1)])
    yield Row("Flatten", 7, [reals(2, 3, 4)])
    yield Row("Flatten", 7, [reals(2, 3, 4)], axis=0)
    yield Row("Flatten", 9, [whole(I32, 2, 3, 4)], axis=3)
    yield Row("Flatten", 11, [reals(2, 3, 4)], axis=-1)
    yield Row("Flatten", 21, [whole(I8, 2, 3, 4)], axis=2)
    yield Row("Reshape", 7, [reals(2, 3, 4), ints(0, -1)])
    yield Row("Reshape", 13, [whole(I64, 2, 3, 4), ints(4, 0, -1)])
    yield Row("Reshape", 14, [reals(2, 3, 4), ints(0, 12)], allowzero=0)
    yield Row("Reshape", 14, [np.zeros((0, 3), np.float32), ints(3, 0)], allowzero=1)
    yield Row("Reshape", 19, [reals(2, 3, 4), np.array([-1, 6], I64)])
    yield Row("Shape", 13, [reals(2, 3, 4)])
    yield Row("Shape", 15, [reals(2, 3, 4)], start=1)
    yield Row("Shape", 15, [reals(2, 3, 4)], start=-2, end=-1)
    yield Row("Shape", 19, [reals(2, 3, 4)], start=2, end=1)
    yield Row("Shape", 21, [reals(2, 3, 4)], start=-9, end=9)
    yield Row("Size", 7, [reals(2, 3, 4)])
    yield Row("Concat", 7, [reals(2, 3), reals(2, 1)], axis=1)
    yield Row("Concat", 13, [reals(2, 0), reals(2, 3), reals(2, 0)], axis=1)
    yield Row("Concat", 11, [whole(I32, 2, 3), whole(I32, 1, 3)], axis=-2)
    yield Row("Split", 7, [reals(5, 2)], outputs=2, split=[2, 3])
    yield Row("Split", 7, [reals(2, 6)], outputs=3, axis=1)
    yield Row("Split", 11, [reals(2, 6)], outputs=2, axis=-1)
    yield Row("Split", 13, [reals(2, 6), ints(1, 5)], outputs=2, axis=1)
    yield Row("Split", 13, [reals(2, 6)], outputs=2, axis=1)
    yield Row("Split", 18, [reals(7, 2)], outputs=3, num_outputs=3)
    yield Row("Split", 18, [whole(I64, 4, 2), ints(0, 4)], outputs=2)


def bounds():
    yield Row("Clip", 7, [reals(3, 4)], min=-0.5, max=0.25)
    yield Row("Clip", 7, [reals(3, 4)], max=0.25)
    yield Row("Clip", 11, [reals(3, 4), None, scalar(0.25)])
    yield Row("Clip", 11, [reals(3, 4), np.array(-0.5, np.float32)])
    yield Row("Clip", 12, [whole(I8, 3, 4), scalar(-3, I8), scalar(4, I8)])
    yield Row("Clip", 12, [whole(I64, 3, 4), scalar(-3, I64)])
    yield Row("Clip", 13, [reals(3, 4), scalar(0.5), scalar(-0.5)])  # All become the maximum.
    yield Row("Pad", 7, [reals(2, 3)], pads=[0, 1, 2, 0], value=1.5)
    yield Row("Pad", 7, [reals(3, 4)], pads=[1, 2, 2, 3], mode="reflect")
    yield Row("Pad", 7, [reals(3, 4)], pads=[-1, 1, 0, -2], mode="edge")
    yield Row("Pad", 11, [reals(2, 3), ints(1, 0, 0, 2), scalar(-2.5)])
    yield Row("Pad", 11, [reals(4, 3), ints(-1, 1, 2, 0)])
    yield Row("Pad", 13, [whole(I64, 2, 3), ints(1, 0, 0, 2), scalar(7, I64)])
    yield Row("Pad", 18, [reals(2, 3, 4), ints(1, 2), scalar(0.5), ints(-1)])
    yield Row("Pad", 18, [reals(2, 3, 4), ints(1, 2, 0, 1), None, ints(2, 0)], mode="edge")
    yield Row("Pad", 19, [reals(3, 4), ints(2, 1, 1, 3)], mode="wrap")
    yield Row("Pad", 21, [reals(3, 4), ints(2, 1, 1, 3)], mode="reflect")
    yield Row("Slice", 7, [reals(5, 6)], starts=[1, -4], ends=[100, -1])
    yield Row("Slice", 7, [reals(5, 6)], starts=[2], ends=[4], axes=[1])
    yield Row("Slice", 10, [reals(5, 6), ints(4, 1), ints(-100, 5), ints(0, 1), ints(-2, 3)])
    yield Row("Slice", 10, [reals(5, 6), ints(1, dtype=I32), ints(4, dtype=I32)])
    yield Row("Slice", 11, [reals(5, 6), ints(-1), ints(-(2**31)), ints(-1), ints(-1)])
    yield Row("Slice", 13, [whole(I8, 5, 6), np.array([1], I64), np.array([2**62], I64), ints(0)])
    yield Row("TopK", 7, [reals(3, 7)], outputs=2, k=3)
    yield Row("TopK", 7, [reals(7, 3)], outputs=2, k=2, axis=0)
    yield Row("TopK", 10, [reals(3, 7), ints(4)], outputs=2)
    yield Row("TopK", 11, [whole(I64, 3, 7, high=99), ints(3)], outputs=2, largest=0, axis=-1)
    yield Row("TopK", 11, [reals(5, 3), np.array([2], I64)], outputs=2, axis=-2)
    yield Row("TopK", 11, [np.array([[1, 3, 3, 1, 3]], np.float32), ints(4)], outputs=2)  # Equal ones by position.
    yield Row("TopK", 11, [whole(I32, 2, 3000, high=99), ints(40)], outputs=2)
    yield Row("TopK", 11, [reals(3000, 2), ints(300)], outputs=2, largest=0, axis=0)


def resizing():
    yield Row("Upsample", 7, [reals(1, 2, 3, 3)], scales=[1.0, 1.0, 2.0, 3.0])
    yield Row("Upsample", 7, [reals(1, 2, 3, 3)], scales=[1.0, 1.0, 2.0, 2.0], mode="linear")
    yield Row("Upsample", 9, [reals(1, 2, 3, 3), Const(np.array([1, 1, 1.5, 2], np.float32))])
    twice, odd = Const(np.array([1, 1, 2, 2], np.float32)), Const(np.array([1, 1, 0.6, 1.75], np.float32))
    x = reals(1, 2, 5, 6)
    yield Row("Resize", 10, [x, twice])
    yield Row("Resize", 10, [x, odd])
    yield Row("Resize", 10, [x, odd], mode="linear")
    yield Row("Resize", 11, [x, EMPTY, odd], mode="nearest", nearest_mode="ceil", coordinate_transformation_mode="asymmetric")
    yield Row("Resize", 11, [x, EMPTY, odd], mode="cubic", cubic_coeff_a=-0.5)
    yield Row("Resize", 11, [x, EMPTY, odd], mode="cubic", exclude_outside=1)
    yield Row("Resize", 11, [x, EMPTY, EMPTY, ints(1, 2, 3, 9)], mode="linear", coordinate_transformation_mode="pytorch_half_pixel")
    yield Row("Resize", 11, [x, EMPTY, EMPTY, ints(1, 2, 1, 1)], mode="linear", coordinate_transformation_mode="pytorch_half_pixel")
    yield Row("Resize", 11, [x, EMPTY, EMPTY, ints(1, 2, 8, 3)], coordinate_transformation_mode="tf_half_pixel_for_nn")
    region = Const(np.array([0, 0, 0.1, 0.3, 1, 1, 0.8, 1.2], np.float32))
    crop = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear", "extrapolation_value": 4.0}
    yield Row("Resize", 11, [x, region, EMPTY, ints(1, 2, 4, 7)], **crop)
    yield Row("Resize", 13, [x, None, twice], mode="linear", coordinate_transformation_mode="align_corners")
    yield Row("Resize", 13, [whole(U8, 1, 2, 5, 6, low=0, high=200), None, twice])
    yield Row("Resize", 13, [x, None, np.array([1, 1, 2, 0.5], np.float32)], mode="linear")
    yield Row("Resize", 13, [x, None, None, np.array([1, 2, 7, 3], I64)])
    yield Row("Resize", 18, [x, None, Const(np.array([0.6, 0.4], np.float32))], mode="linear", antialias=1, axes=[2, 3])
    yield Row("Resize", 18, [x, None, Const(np.array([0.5, 0.5], np.float32))], mode="cubic", antialias=1, axes=[2, 3])
    yield Row("Resize", 18, [x, None, None, ints(3, 9)], axes=[2, 3], mode="linear")
    for policy in ("not_larger", "not_smaller"):
        yield Row("Resize", 18, [x, None, None, ints(7, 8)], axes=[2, 3], keep_aspect_ratio_policy=policy)
    yield Row("Resize", 19, [x, None, odd], mode="linear", coordinate_transformation_mode="half_pixel_symmetric")
    yield Row("Resize", 19, [x, None, odd], mode="nearest", nearest_mode="round_prefer_ceil")


def normalizations():
    x, one = reals(2, 4, 3, 3), [Const(np.abs(reals(4)) + 0.5), Const(reals(4)), Const(reals(4)), Const(np.abs(reals(4)) + 0.5)]
    for opset in (7, 9, 14, 15):
        yield Row("BatchNormalization", opset, [x, *one], epsilon=1e-3)
    yield Row("BatchNormalization", 9, [reals(3, 4), *one])
    yield Row("BatchNormalization", 14, [x, *one], outputs=3, training_mode=1)
    yield Row("InstanceNormalization", 7, [x, *one[:2]], epsilon=1e-2)
    yield Row("GroupNormalization", 18, [x, Const(reals(2)), Const(reals(2))], num_groups=2)
    yield Row("GroupNormalization", 21, [x, *one[:2]], num_groups=2, epsilon=1e-3)
    yield Row("LayerNormalization", 17, [reals(2, 3, 4), Const(reals(4)), Const(reals(4))])
    yield Row("LayerNormalization", 17, [reals(2, 3, 4), Const(reals(3, 4))], axis=1, outputs=3)
    yield Row("LpNormalization", 7, [reals(2, 3, 4)])
    yield Row("LpNormalization", 7, [reals(2, 3, 4)], axis=1, p=1)
    yield Row("LRN", 7, [x], size=3, alpha=0.1, bias=1.5)
    yield Row("LRN", 13, [reals(3, 3, 2, 2)], size=2)
    yield Row("MeanVarianceNormalization", 9, [x])
    yield Row("MeanVarianceNormalization", 13, [x], axes=[0, 1])
    yield Row("Dropout", 7, [x], ratio=0.3)
    yield Row("Dropout", 10, [x], outputs=2, by_reference=True, ratio=0.3)  # ONNX Runtime's mask holds zeros.
    yield Row("Dropout", 12, [x, scalar(0.4)], outputs=2)
    yield Row("Dropout", 13, [x, scalar(0.4), scalar(False, np.bool_)], outputs=2)
    yield Row("Dropout", 13, [x])


def reductions():
    kinds = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
    x = np.abs(reals(2, 3, 4)) + 0.1
    for kind in kinds:
        own = 13 if kind == "Sum" else 18
        yield Row("Reduce" + kind, 7, [x], axes=[0, 2])
        yield Row("Reduce" + kind, 11, [x], axes=[-2], keepdims=0)
        yield Row("Reduce" + kind, own, [x, ints(-1, 0)], keepdims=0)
        yield Row("Reduce" + kind, own, [x, np.array([1], I64)])
        if kind != "LogSum":  # The reference leaves out the logarithm, which later texts of ONNX do not.
            yield Row("Reduce" + kind, own, [x], noop_with_empty_axes=1)
        yield Row("Reduce" + kind, own, [x, ints()], noop_with_empty_axes=0)
    yield Row("ReduceMax", 12, [whole(I8, 3, 4)], axes=[1])
    yield Row("ReduceMin", 20, [whole(U8, 3, 4, low=0) > 4, ints(1)])
    yield Row("ReduceSum", 13, [whole(I64, 3, 4), ints(1)])
    yield Row("ReduceMean", 7, [whole(I32, 3, 4)], axes=[1])
    yield Row("ReduceProd", 13, [whole(I32, 3, 4)], axes=[1])
    tied = np.array([[2, 2, 1], [0, 3, 3]], np.float32)
    for op in ("ArgMax", "ArgMin"):
        yield Row(op, 7, [reals(2, 3, 4)], axis=1, keepdims=0)
        yield Row(op, 11, [reals(2, 3, 4)], axis=-1)
        yield Row(op, 12, [tied], axis=1, select_last_index=1)
        yield Row(op, 13, [whole(I32, 2, 3, 4)])


def pools():
    x = reals(1, 2, 7, 8)
    window = {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1]}
    for opset in (7, 10, 11, 19, 22):
        yield Row("AveragePool", opset, [x], **window)
        # From opset 19 on ONNX Runtime divides by less where a window ends in pads that are counted.
        yield Row("AveragePool", opset, [x], by_reference=opset >= 19, **window | {"count_include_pad": 1, "pads": [1, 0, 1, 0]})
    yield Row("AveragePool", 10, [x], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    yield Row("AveragePool", 11, [x], kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_LOWER")
    yield Row("AveragePool", 19, [x], kernel_shape=[3, 2], dilations=[2, 3], strides=[1, 2])
    yield Row("AveragePool", 19, [x], kernel_shape=[3, 2], dilations=[2, 2], pads=[1, 1, 2, 1])
    yield Row("MaxPool", 8, [x], outputs=2, **window)
    yield Row("MaxPool", 8, [x], outputs=2, storage_order=1, **window)
    yield Row("MaxPool", 10, [x], outputs=2, kernel_shape=[3, 2], dilations=[2, 2], ceil_mode=1, strides=[3, 2])
    yield Row("MaxPool", 12, [whole(I8, 1, 2, 7, 8)], outputs=2, **window)
    yield Row("MaxPool", 12, [whole(U8, 1, 2, 7, 8, low=0)], **window)
    yield Row("MaxPool", 22, [x], outputs=2, auto_pad="SAME_UPPER", kernel_shape=[2, 3], strides=[2, 2])
    yield Row("MaxPool", 12, [reals(2, 3, 4, 5, 6)], outputs=2, kernel_shape=[2, 3, 2], pads=[0, 1, 1, 1, 1, 0])
    yield Row("MaxPool", 12, [reals(2, 3, 9)], outputs=2, kernel_shape=[4], strides=[3], ceil_mode=1)
    for opset in (7, 11, 18, 22):
        yield Row("LpPool", opset, [x], p=3, **window)
    yield Row("LpPool", 18, [x], kernel_shape=[2, 2], dilations=[2, 1], ceil_mode=1, strides=[2, 2])
    yield Row("GlobalLpPool", 7, [x], p=3)
    yield Row("MaxUnpool", 9, [reals(1, 1, 2, 2), np.array([[[[5, 7], [13, 15]]]], I64)], kernel_shape=[2, 2], strides=[2, 2])
    given = [reals(1, 1, 2, 2), np.array([[[[5, 7], [13, 15]]]], I64), ints(1, 1, 5, 5)]
    yield Row("MaxUnpool", 11, given, by_reference=True, kernel_shape=[2, 2], strides=[2, 2])  # Indices are those without output_shape.


def products():
    a, b = reals(3, 4), reals(4, 5)
    yield Row("Gemm", 7, [a, b, Const(reals(5))], alpha=0.5, beta=2.0)
    yield Row("Gemm", 7, [a.T.copy(), b.T.copy(), reals(3, 1)], transA=1, transB=1)
    yield Row("Gemm", 9, [whole(I32, 3, 4), whole(I32, 4, 5), whole(I32, 1, 5)])
    yield Row("Gemm", 11, [a, b])
    yield Row("Gemm", 13, [a, Const(b), scalar(0.5)], beta=3.0)
    yield Row("MatMul", 9, [whole(I64, 2, 3, 4), whole(I64, 4, 5)])
    yield Row("MatMul", 13, [reals(4), reals(2, 4, 3)])
    yield Row("MatMul", 13, [reals(2, 3, 4), reals(4)])
    yield Row("MatMul", 13, [reals(4), reals(4)])
    yield Row("MatMul", 13, [reals(2, 1, 3, 4, 5), reals(3, 5, 2)])
    yield Row("MatMulInteger", 10, [whole(U8, 3, 4, low=0), whole(I8, 4, 5), scalar(3, U8), Const(whole(I8, 5))])
    yield Row("Einsum", 12, [reals(2, 3, 4), reals(2, 4, 5)], equation="bij,bjk->bik")
    x, w = reals(1, 4, 6, 5), Const(reals(4, 3, 3, 3))
    yield Row("Conv", 7, [x, Const(reals(6, 2, 3, 2)), Const(reals(6))], group=2, auto_pad="SAME_LOWER", strides=[2, 1])
    yield Row("Conv", 11, [x, Const(reals(6, 4, 3, 2))], dilations=[2, 1], pads=[1, 0, 2, 1])
    yield Row("ConvTranspose", 7, [x, w], output_shape=[13, 11], strides=[2, 2])
    yield Row("ConvTranspose", 11, [x, w], auto_pad="SAME_UPPER", strides=[2, 3])
    yield Row("ConvTranspose", 11, [x, w, Const(reals(3))], output_padding=[1, 0], strides=[2, 2], pads=[1, 0, 1, 2], dilations=[1, 2])
    yield Row("ConvInteger", 10, [whole(U8, 1, 2, 4, 4, low=0), Const(whole(U8, 3, 2, 3, 3, low=0)), scalar(2, U8), scalar(4, U8)], pads=[1, 1, 1, 1])
    scale = scalar(0.05)
    q = [whole(U8, 1, 2, 4, 4, low=0), scale, scalar(3, U8), Const(whole(I8, 3, 2, 3, 3)), Const(np.array([0.1, 0.2, 0.05], np.float32)),
         Const(np.zeros(3, I8)), scale, scalar(128, U8)]  # fmt: skip
    yield Row("QLinearConv", 10, [*q, Const(whole(I32, 3))])
    q = [whole(U8, 3, 4, low=0), scale, scalar(3, U8), whole(U8, 4, 5, low=0), scale, scalar(5, U8), scale, scalar(7, U8)]
    yield Row("QLinearMatMul", 10, q)
    yield Row("QLinearMatMul", 21, q)


def arithmetic():
    x, y = reals(2, 3), reals(3)
    for op in ("Add", "Sub", "Mul", "Div"):
        yield Row(op, 7, [x, y])
        yield Row(op, 7 if op != "Div" else 13, [whole(I32, 2, 3), whole(I32, 3) * 2 + 1])
        yield Row(op, 14, [whole(U8, 2, 3, low=0), whole(U8, 3, low=1)])
    yield Row("Pow", 7, [np.abs(x), y])
    yield Row("Pow", 12, [whole(I32, 2, 3, low=0), Const(np.array(2.5, np.float32))])
    yield Row("Pow", 13, [x, whole(I64, 2, 3, low=-3, high=3)])
    yield Row("Pow", 15, [whole(I64, 2, 3), whole(I32, 3, low=0, high=4)])
    yield Row("Mod", 10, [whole(I32, 2, 5), Const(np.array([3, -3, 5, -5, 4], I32))])
    yield Row("Mod", 10, [reals(2, 5) * 9, Const(np.array([3, -3, 2.5, -2.5, 4], np.float32))], fmod=1)
    yield Row("Mod", 13, [whole(I64, 2, 5), Const(np.array([3, -3, 5, -5, 4], I64))], fmod=1)
    yield Row("Mod", 13, [whole(U8, 2, 5, low=0), Const(np.array([3, 2, 5, 1, 4], U8))])
    for op in ("Max", "Min"):
        yield Row(op, 8, [x, y, reals(2, 1)])
        yield Row(op, 12, [whole(I32, 2, 3), whole(I32, 3)])
        yield Row(op, 13, [np.array([1, np.nan, 2], np.float32), np.array([np.nan, 1, 3], np.float32)], by_reference=True)
    yield Row("Sum", 8, [x, y, reals(2, 1)])
    yield Row("Mean", 13, [x, y, reals(2, 1)])
    yield Row("BitShift", 11, [whole(U8, 2, 3, low=0), Const(np.array([1, 2, 3], U8))], direction="LEFT")
    yield Row("BitwiseAnd", 18, [whole(I32, 2, 3), whole(I32, 3)])
    yield Row("Neg", 13, [whole(I8, 2, 3)])
    yield Row("Abs", 13, [whole(I64, 2, 3)])
    yield Row("Sign", 9, [whole(I32, 2, 3)])
    yield Row("Round", 11, [np.array([0.5, 1.5, -0.5, -1.5, 2.4, 2.6], np.float32)])
    yield Row("CumSum", 11, [reals(3, 4), scalar(1, I32)], exclusive=1)
    yield Row("CumSum", 14, [whole(I64, 3, 4), scalar(-2, I64)], reverse=1)
    yield Row("PRelu", 7, [reals(2, 3, 2), Const(reals(3, 1))])
    yield Row("PRelu", 16, [reals(2, 3, 2), reals(2)])
    yield Row("ThresholdedRelu", 10, [x], alpha=0.3)
    yield Row("Celu", 12, [x], alpha=0.7)
    yield Row("HardSwish", 14, [x * 4])
    yield Row("Mish", 18, [x])
    yield Row("Gelu", 20, [x], approximate="tanh")
    yield Row("Gelu", 20, [x])
    yield Row("Relu", 14, [whole(I32, 2, 3)])


def comparisons():
    x, y = reals(2, 3), reals(3)
    flags = whole(I32, 2, 3) > 0
    yield Row("Equal", 7, [flags, ~flags[0]])
    yield Row("Equal", 7, [whole(I64, 2, 3), whole(I64, 3)])
    yield Row("Equal", 11, [x, x[0]])
    yield Row("Equal", 13, [whole(U8, 2, 3, low=0), whole(U8, 3, low=0)])
    yield Row("Equal", 19, [np.array(["a", "b", "ä"], object), Const(np.array(["a"], object))])
    for op in ("Greater", "Less"):
        yield Row(op, 7, [x, y])
        yield Row(op, 9, [whole(I32, 2, 3), whole(I32, 3)])
        yield Row(op + "OrEqual", 12, [whole(I64, 2, 3), whole(I64, 3)])
        yield Row(op + "OrEqual", 16, [x, x[0]])
    yield Row("Where", 9, [flags, x, y])
    yield Row("Where", 16, [flags, whole(U8, 1, low=0), whole(U8, 2, 3, low=0)])
    yield Row("IsInf", 10, [np.array([1, np.inf, -np.inf, np.nan], np.float32)], detect_negative=0)
    yield Row("IsNaN", 13, [np.array([1, np.inf, np.nan], np.float64)])
    yield Row("NonZero", 9, [whole(I32, 3, 4) % 3])
    yield Row("NonZero", 13, [flags])
    yield Row("Not", 7, [flags])
    yield Row("Xor", 7, [flags, ~flags[1]])
    yield Row("OneHot", 9, [whole(I64, 2, 3, low=0, high=4), scalar(5, I64), Const(np.array([0, 1], np.float32))])
    yield Row("OneHot", 11, [whole(I32, 2, 3, low=-4, high=4), scalar(5, I32), Const(np.array([2, 7], I64))], axis=-2)
    yield Row("OneHot", 11, [whole(I64, 2, 3, low=0, high=9), np.array([4], I64), Const(np.array([0, 1], np.float32))], axis=0)


def gathers():
    x, index = reals(3, 4), np.array([[1, -1, 0, 2], [0, 2, -3, 1]], I64)
    yield Row("Gather", 7, [x, np.array([2, 0], I64)])
    yield Row("Gather", 11, [x, np.array([[-1, 0]], I32)], axis=-1)
    yield Row("Gather", 13, [whole(U8, 3, 4, low=0), scalar(-2, I64)], axis=1)
    yield Row("GatherElements", 11, [x, index])
    yield Row("GatherElements", 13, [whole(I8, 3, 4), np.array([[0], [-1], [2]], I32)], axis=-1)
    yield Row("GatherND", 11, [reals(2, 3, 4), np.array([[1, -1], [0, 2]], I64)])
    yield Row("GatherND", 12, [reals(2, 3, 4), np.array([[1], [-1]], I64)], batch_dims=1)
    update = reals(2, 4)
    yield Row("Scatter", 9, [x, np.abs(index) % 3, update])
    yield Row("ScatterElements", 11, [x, index, update])
    yield Row("ScatterElements", 13, [x, np.array([[0], [-1], [2]], I32), reals(3, 1)], axis=-1)
    same = np.array([[0, 1, 0, 1], [0, -2, 2, 1]], I64)
    for opset, kind in ((16, "add"), (16, "mul"), (18, "max"), (18, "min")):
        yield Row("ScatterElements", opset, [x, same, update], reduction=kind)
        yield Row("ScatterND", opset, [x, np.array([[0], [-1], [0]], I64), reals(3, 4)], reduction=kind)
    yield Row("ScatterND", 11, [x, np.array([[0, 1], [2, -1]], I64), reals(2)])
    yield Row("DepthToSpace", 7, [reals(1, 8, 2, 3)], blocksize=2)
    yield Row("DepthToSpace", 11, [reals(1, 8, 2, 3)], blocksize=2, mode="CRD")
    yield Row("DepthToSpace", 13, [reals(1, 9, 1, 2)], blocksize=3, mode="DCR")
    yield Row("SpaceToDepth", 7, [reals(1, 2, 4, 6)], blocksize=2)
    yield Row("Compress", 9, [x, np.array([True, False, True])], axis=0)
    yield Row("Compress", 11, [x, np.array([True, False, True, True, True])])
    yield Row("Expand", 8, [reals(3, 1), ints(2, 1, 4)])
    yield Row("Tile", 7, [x, ints(2, 1)])
    yield Row("Trilu", 14, [reals(2, 3, 4), scalar(-1, I64)], upper=0)
    yield Row("ReverseSequence", 10, [x, np.array([1, 3, 2, 2], I64)])
    yield Row("ReverseSequence", 10, [x, np.array([1, 3, 2], I64)], batch_axis=0, time_axis=1)
    yield Row("Unique", 11, [np.array([3, 1, 1, 2, 3], I64)], outputs=4, sorted=0)
    yield Row("Unique", 11, [np.array([[1, 0], [1, 0], [2, 3]], np.float32)], outputs=4, axis=0)
    yield Row("EyeLike", 9, [whole(I32, 3, 4)], k=1, dtype=TensorProto.FLOAT)
    yield Row("ConstantOfShape", 9, [ints(2, 3)], value=helper.make_tensor("v", TensorProto.INT64, [1], [7]))
    yield Row("Range", 11, [scalar(1, I32), np.array(9, I32), scalar(3, I32)])
    yield Row("Range", 11, [np.array(17 * 10**17, I64), np.array(17 * 10**17 + 10, I64), scalar(3, I64)])
    yield Row("CenterCropPad", 18, [reals(5, 4), ints(3, 7)])
    yield Row("Col2Im", 18, [reals(1, 8, 6), ints(3, 4), ints(2, 2)])


def casts():
    x = np.array([-1.7, 0, 0.4, 3.9, 250.2], np.float32)
    for opset, target in ((7, "INT32"), (9, "BOOL"), (9, "DOUBLE"), (13, "FLOAT16"), (19, "INT64"), (21, "INT8")):
        yield Row("Cast", opset, [x[:4]], to=getattr(TensorProto, target))
    yield Row("Cast", 7, [whole(I64, 5, low=0, high=300)], to=TensorProto.UINT8)
    yield Row("Cast", 9, [whole(I64, 5)], to=TensorProto.STRING)
    yield Row("Cast", 13, [np.array(["1.5", "-2", "1e3"], object)], to=TensorProto.FLOAT)
    yield Row("CastLike", 15, [x[:4], whole(I32, 1)])


def quantizers():
    x, scale = reals(3, 4) * 4, np.float32(0.03)
    each = Const(np.array([0.02, 0.03, 0.05], np.float32))
    yield Row("QuantizeLinear", 10, [x, scalar(scale), scalar(128, U8)])
    yield Row("QuantizeLinear", 10, [x, scalar(scale)])
    yield Row("QuantizeLinear", 13, [x, each, Const(np.array([0, 5, -5], I8))], axis=0)
    yield Row("QuantizeLinear", 13, [x[:, :3].copy(), each, Const(np.array([0, 5, 250], U8))])
    yield Row("QuantizeLinear", 19, [x, np.array(scale), np.array(3, I8)])
    yield Row("QuantizeLinear", 19, [x.astype(F16), scalar(0.03, F16), scalar(3, I8)], by_reference=True)  # ONNX Runtime truncates.
    yield Row("QuantizeLinear", 21, [x, scalar(0.0003), scalar(1000, U16)])
    yield Row("QuantizeLinear", 21, [x, scalar(scale)], output_dtype=TensorProto.INT8)
    blocks = Const(np.array([[0.02, 0.03], [0.05, 0.04], [0.06, 0.01]], np.float32))
    yield Row("QuantizeLinear", 21, [x, blocks, Const(np.zeros((3, 2), I8))], axis=1, block_size=2)
    q = whole(U8, 3, 4, low=0, high=200)
    yield Row("DequantizeLinear", 10, [q, scalar(scale), scalar(128, U8)])
    yield Row("DequantizeLinear", 10, [whole(I32, 3, 4), scalar(scale)])
    yield Row("DequantizeLinear", 13, [q, each, Const(np.array([0, 5, 250], U8))], axis=-2)
    yield Row("DequantizeLinear", 19, [q, scalar(0.03, F16), scalar(3, U8)])
    yield Row("DequantizeLinear", 21, [whole(I16, 3, 4), scalar(scale), scalar(-300, I16)])
    yield Row("DequantizeLinear", 21, [whole(I8, 3, 4), blocks, Const(np.ones((3, 2), I8))], axis=1, block_size=2)
    yield Row("DynamicQuantizeLinear", 11, [x], outputs=3)


def recurrent(op, gates, **attributes):
    """Inputs of a layer over [T, N, I], with its initial state, and its attributes."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    w = [Const(reals(directions, gates * 5, 3)), Const(reals(directions, gates * 5, 5)), Const(reals(directions, 2 * gates * 5))]
    state = reals(directions, 2, 5)
    states = [state, state * 0.5] if op == "LSTM" else [state]
    return [reals(4, 2, 3), *w, Const(np.array([4, 2], I32)), *states], attributes | {"hidden_size": 5, "outputs": 3 if op == "LSTM" else 2}


def layers():
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        for opset, kind, attributes in ((7, Row, {}), (14, Row, {"direction": "bidirectional"}), (14, BatchFirst, {}), (22, BatchFirst, {"direction": "reverse"})):
            inputs, attributes = recurrent(op, gates, **attributes)
            yield kind(op, opset, inputs, **attributes)
    inputs, attributes = recurrent("GRU", 3, linear_before_reset=1, clip=0.5)
    yield Row("GRU", 7, inputs, **attributes)
    inputs, attributes = recurrent("LSTM", 4, input_forget=1, activations=["HardSigmoid", "Softsign", "Relu"])
    yield Row("LSTM", 14, [*inputs, Const(reals(1, 15))], **attributes)
    inputs, attributes = recurrent("RNN", 1, activations=["Affine"], activation_alpha=[0.5], activation_beta=[0.1])
    yield Row("RNN", 7, inputs, **attributes)


def value(name, dtype=TensorProto.FLOAT, shape=None):
    return helper.make_tensor_value_info(name, dtype, shape)


def loop_body(opset):
    """(i, condition, carried) -> (sum < 30, carried + captured * i, carried), where `captured` lies in the graph around it."""
    more, attributes = ([], {"axes": [0]}) if opset < 13 else (["zero"], {})
    nodes = [
        helper.make_node("Cast", ["i"], ["step"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["in3", "step"], ["share"]),
        helper.make_node("Add", ["carried", "share"], ["next"]),
        helper.make_node("ReduceSum", ["next", *more], ["sum"], keepdims=0, **attributes),
        helper.make_node("Less", ["sum", "most"], ["on"]),
        helper.make_node("Identity", ["carried"], ["before"]),
    ]
    constants = [helper.make_tensor("most", TensorProto.FLOAT, [], [30.0]), helper.make_tensor("zero", TensorProto.INT64, [1], [0])]
    inputs = [value("i", TensorProto.INT64, []), value("condition", TensorProto.BOOL, []), value("carried")]
    return helper.make_graph(nodes, "body", inputs, [value("on", TensorProto.BOOL), value("next"), value("before")], constants)


def scan_body():
    """(state, x, y) -> (state * 0.5 + x, state + y)."""
    nodes = [
        helper.make_node("Mul", ["state", "half"], ["less"]),
        helper.make_node("Add", ["less", "x"], ["next"]),
        helper.make_node("Add", ["state", "y"], ["row"]),
    ]
    half = [helper.make_tensor("half", TensorProto.FLOAT, [1], [0.5])]
    return helper.make_graph(nodes, "body", [value("state"), value("x"), value("y")], [value("next"), value("row")], half)


def branch(name, op, *names):
    return helper.make_graph([helper.make_node(op, list(names), [name])], name, [], [value(name)])


def control_flow():
    carried, captured = np.array([1, 2], np.float32), np.array([3, 0.5], np.float32)
    for opset in (7, 11, 13, 16, 21):
        for most in (2, 20):
            yield Row("Loop", opset, [scalar(most, I64), scalar(True, np.bool_), carried, captured], read=3, outputs=2, body=loop_body(opset))
    for opset in (7, 11, 13, 19):
        for chosen in (False, True):
            branches = {"then_branch": branch("sum", "Add", "in1", "in2"), "else_branch": branch("difference", "Concat", "in1", "in2")}
            branches["else_branch"].node[0].attribute.append(helper.make_attribute("axis", 0))
            yield Row("If", opset, [np.array(chosen), reals(2, 3), reals(1, 3)], read=1, **branches)
    y = reals(5, 2)
    yield Row("Scan", 8, [None, reals(3, 2), reals(3, 5, 2), reals(3, 5, 2)], outputs=2, num_scan_inputs=2, body=scan_body())
    yield Row("Scan", 8, [np.array([5, 2, 4], I64), reals(3, 2), reals(3, 5, 2), reals(3, 5, 2)], outputs=2, num_scan_inputs=2, directions=[0, 1], body=scan_body())
    yield Row("Scan", 9, [reals(2), reals(5, 2), y], outputs=2, num_scan_inputs=2, body=scan_body(), scan_input_directions=[1, 0])
    attributes = {"scan_input_axes": [-1, 0], "scan_output_axes": [-1], "scan_output_directions": [1]}
    yield Row("Scan", 11, [reals(2), reals(2, 5), y], outputs=2, num_scan_inputs=2, body=scan_body(), **attributes)
    yield Row("Scan", 21, [reals(2), reals(2, 5), y], outputs=2, num_scan_inputs=2, body=scan_body(), **attributes)


def detection():
    boxes = np.array([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, 2, 1, 3], [1, 1, 0, 0]]], np.float32)
    scores = np.array([[[0.9, 0.8, 0.7, 0.6], [0.1, 0.9, 0.3, 0.4]]], np.float32)
    for opset in (10, 11):
        yield Row("NonMaxSuppression", opset, [boxes, scores, scalar(3, I64), scalar(0.5)])
    yield Row("NonMaxSuppression", 11, [boxes, scores, scalar(2, I64), scalar(0.5), scalar(0.35)], center_point_box=1)
    x, regions, images = reals(2, 3, 6, 7), np.array([[0, 0, 4, 3], [1.3, 2, 5, 5.5], [2, 1, 2.1, 1.2]], np.float32), np.array([0, 1, 1], I64)
    size = {"output_height": 2, "output_width": 3, "spatial_scale": 0.8}
    yield Row("RoiAlign", 10, [x, regions, images], **size, sampling_ratio=2)
    yield Row("RoiAlign", 16, [x, regions, images], **size)
    yield Row("RoiAlign", 16, [x, regions, images], **size, coordinate_transformation_mode="output_half_pixel", sampling_ratio=2)
    grid = reals(2, 4, 5, 2) * 0.8
    for opset, modes in ((16, ("bilinear", "nearest", "bicubic")), (20, ("linear", "nearest", "cubic")), (22, ("linear", "nearest"))):
        for mode in modes:
            for padding in ("zeros", "border", "reflection"):
                yield Row("GridSample", opset, [x, grid], mode=mode, padding_mode=padding, align_corners=int(padding == "border"))
    yield Row("GridSample", 20, [reals(1, 2, 3, 4, 5), reals(1, 2, 3, 4, 3) * 0.8], mode="linear")
    yield Row("AffineGrid", 20, [reals(2, 2, 3), ints(2, 3, 4, 5)], align_corners=1)
    yield Row("AffineGrid", 20, [reals(1, 3, 4), ints(1, 3, 2, 4, 5)])


def losses_and_spectra():
    x, labels = reals(3, 4, 2), np.array([[0, 3], [1, 1], [2, 0]], I64)
    for opset in (12, 13):
        yield Row("SoftmaxCrossEntropyLoss", opset, [x, labels], reduction="mean")
        yield Row("SoftmaxCrossEntropyLoss", opset, [x, labels, Const(np.array([1, 2, 0.5, 1], np.float32))], outputs=2, ignore_index=1)
        yield Row("NegativeLogLikelihoodLoss", opset, [x, labels], reduction="none")
        yield Row("NegativeLogLikelihoodLoss", opset, [x, labels, Const(np.array([1, 2, 0.5, 1], np.float32))], reduction="sum")
    yield Row("DFT", 17, [reals(2, 6, 1)], axis=1, onesided=1)
    yield Row("DFT", 17, [reals(2, 6, 2), scalar(8, I64)], axis=1, inverse=1)
    yield Row("DFT", 20, [reals(2, 6, 1), None, scalar(1, I64)])
    yield Row("STFT", 17, [reals(1, 32, 1), scalar(8, I64), Const(np.hanning(16).astype(np.float32))])
    for op in ("HannWindow", "HammingWindow", "BlackmanWindow"):
        yield Row(op, 17, [scalar(10, I32)], periodic=int(op == "HannWindow"))
    yield Row("Det", 11, [reals(2, 3, 3)])
    yield Row("Det", 22, [reals(3, 3)])


FAMILIES = (normalized_exponentials, axes, bounds, resizing, normalizations, reductions, pools, products, arithmetic, comparisons, gathers,
            casts, quantizers, layers, control_flow, detection, losses_and_spectra)  # fmt: skip
