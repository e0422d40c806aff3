"""What slides over images: kernels, their strides and pads and the extents that they make; pools.

b is a Builder, x a value [N, C, spatial...].
"""


def pool_extent(extent, kernel, stride, dilation, begin, end, ceil=False):
    span = extent + begin + end - (dilation * (kernel - 1) + 1)
    out = -(-span // stride) if ceil else span // stride
    if ceil and out * stride >= extent + begin:  # A window that would begin in the padding behind is left out.
        out -= 1
    return out + 1


def window(b, x, most_kernel=4):
    """Kernel, strides, dilations and pads that leave something of every spatial axis, and the result's extents."""
    kernel, strides, dilations, begins, ends, extents = [], [], [], [], [], []
    for extent in x.shape[2:]:
        k = b.random.randint(1, min(most_kernel, extent))
        d = 2 if b.chance(0.2) and 2 * (k - 1) + 1 <= extent else 1
        s = b.random.choice([1, 1, 2, 3])
        begin, end = (b.random.randint(0, (k - 1) * d // 2 + (k > 1)) for _ in range(2)) if b.chance(0.6) else (0, 0)
        begin, end = min(begin, k - 1), min(end, k - 1)
        kernel.append(k), strides.append(s), dilations.append(d), begins.append(begin), ends.append(end)
        extents.append(pool_extent(extent, k, s, d, begin, end))
    return kernel, strides, dilations, begins + ends, extents


def conv_weights(b, x, kernel):
    """Group, output channels and the weights' extents of a convolution: dense, grouped, depthwise, with a multiplier."""
    channels = x.shape[1]
    groups = b.random.choice([g for g in range(1, channels + 1) if channels % g == 0])
    if b.chance(0.5):
        groups = b.random.choice([1, channels])
    out = groups * b.random.choice([1, 1, 2, 3]) if groups > 1 else b.random.choice([1, 3, 4, 8, 16, 17, 32, 48])
    return groups, out, (out, channels // groups, *kernel)


def conv_attributes(b, kernel, strides, dilations, pads, groups):
    """Attributes, with defaults now and then left out."""
    attributes = {"strides": strides, "dilations": dilations, "pads": pads, "group": groups, "kernel_shape": kernel}
    for name, default in (("strides", 1), ("dilations", 1), ("pads", 0)):
        if all(v == default for v in attributes[name]) and b.chance(0.5):
            del attributes[name]
    if b.chance(0.3):
        del attributes["kernel_shape"]
    return attributes


def same_pads(b, x, kernel, strides, dilations):
    """auto_pad instead of pads, and the extents that it gives."""
    extents = [-(-e // s) for e, s in zip(x.shape[2:], strides)]
    return {"auto_pad": b.random.choice(["SAME_UPPER", "SAME_LOWER"]), "kernel_shape": kernel, "strides": strides, "dilations": dilations}, extents


def transposed_window(b, x):
    """Attributes of a ConvTranspose over x, and the extents that they lead to; None where nothing is left."""
    kernel = [b.random.randint(1, 3) for _ in x.shape[2:]]
    strides = [b.random.choice([1, 2]) for _ in kernel]
    dilations = [b.random.choice([1, 1, 2]) for _ in kernel]
    pads = [b.random.randint(0, k - 1) // 2 for k in kernel] * 2
    more = [b.random.randint(0, s - 1) for s in strides]
    extents = [(e - 1) * s + (k - 1) * d + 1 - 2 * p + m for e, s, k, d, p, m in zip(x.shape[2:], strides, kernel, dilations, pads, more)]
    attributes = {"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilations, "group": b.random.choice([1, x.shape[1]])}
    if any(more):
        attributes["output_padding"] = more
    return (attributes, extents) if min(extents) > 0 else None


def pool(b, x):
    kind = b.random.choice(["MaxPool", "MaxPool", "AveragePool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean"])
    if kind.startswith("Global"):
        return b.op(kind, [x], x.shape[:2] + (1,) * (len(x.shape) - 2))
    if kind == "ReduceMean":
        return b.axes(kind, x, range(2, len(x.shape)), x.shape[:2] + (1,) * (len(x.shape) - 2), 18, keepdims=1)
    kernel, strides, dilations, pads, extents = window(b, x, 3)
    attributes = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    if kind == "MaxPool" and any(d > 1 for d in dilations):
        attributes["dilations"] = dilations
    elif kind == "AveragePool":
        dilations = [1] * len(kernel)
        # From opset 19 on ONNX Runtime divides by less where a window ends in pads that are counted.
        attributes["count_include_pad"] = 0 if b.opset >= 19 else b.random.randint(0, 1)
    rank = len(kernel)
    ceil = b.chance(0.2)
    if ceil and kind == "MaxPool":
        attributes["ceil_mode"] = 1
    extents = [pool_extent(e, k, s, d, p, q, ceil and kind == "MaxPool")
               for e, k, s, d, p, q in zip(x.shape[2:], kernel, strides, dilations, pads[:rank], pads[rank:])]
    return b.op(kind, [x], (*x.shape[:2], *extents), **attributes)
