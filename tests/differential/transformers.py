"""Attention as ONNX Runtime's optimizer writes it: MultiHeadAttention and GroupQueryAttention, with masks, biases and a past; as exporters do in windows."""

import numpy as np

MS = "com.microsoft"


def projected(b, x, width):
    """[N, T, C] times weights: [N, T, width]."""
    y = b.op("MatMul", [x, b.floats((x.shape[-1], width), x.shape[-1] ** -0.5)], (*x.shape[:-1], width))
    return b.op("Add", [y, b.floats([width], 0.3)], y.shape) if b.chance(0.3) else y


def heads_apart(b, x, heads):
    """[N, T, heads * size] -> [N, heads, T, size]."""
    n, t, width = x.shape
    return b.transpose(b.reshape(x, [n, t, heads, width // heads]), [0, 2, 1, 3])


def finished(b, x, y):
    """A product back to x's width, and the residual sum."""
    if b.chance(0.5):
        return y
    y = projected(b, y, x.shape[-1])
    return b.op("Add", [x, y], x.shape)


def key_mask(b, batch, rows, keys):
    """Which keys are seen: how many, or which, or which by each query. Each query sees one at least."""
    kind = b.random.choice(["lengths", "keys", "each"])
    if kind == "lengths":
        return b.constant(b.numpy.integers(1, keys + 1, batch).astype(np.int32))
    mask = (b.numpy.random((batch, keys) if kind == "keys" else (batch, rows, keys)) < 0.7).astype(np.int32)
    mask[..., 0] = 1
    return b.constant(mask)


def multi_head(b, x):
    n, t, _ = x.shape
    heads, size = b.random.choice([1, 2, 4]), b.random.choice([4, 8, 16])
    crossed = b.chance(0.4)
    apart = crossed and b.chance(0.3)
    value_size = size if apart else b.random.choice([size, size, 12])
    source = b.input((b.random.choice([1, 5, 9]), 6)) if crossed else x
    keys = source.shape[1]
    inputs = [projected(b, x, heads * size), projected(b, source, heads * size), projected(b, source, heads * value_size), None, None, None]
    if apart:  # Keys and values that come as heads already.
        inputs[1], inputs[2] = heads_apart(b, inputs[1], heads), heads_apart(b, inputs[2], heads)
    elif b.chance(0.4):
        inputs[3] = b.floats([heads * (2 * size + value_size)], 0.3)
    has_past = not crossed and value_size == size and b.chance(0.3)
    if has_past:
        past = b.random.choice([1, 3])
        inputs += [b.input((heads, past, size)), b.input((heads, past, size))]
        keys += past
    if not b.symbolic and not apart and b.chance(0.3):
        inputs[4] = key_mask(b, n, t, keys)
    if b.chance(0.3):
        inputs[5] = b.floats((1 if b.symbolic else b.random.choice([1, n]), heads, t, keys))
    attributes = {"num_heads": heads}
    if b.chance(0.3):
        attributes["scale"] = 0.3
    if keys == t and b.chance(0.3):
        attributes["unidirectional"] = 1
    while inputs[-1] is None:
        inputs.pop()
    shapes = [(n, t, heads * value_size)] + [(n, heads, keys, size), (n, heads, keys, value_size)] * has_past
    y, *present = b.ops("MultiHeadAttention", inputs, shapes, domain=MS, **attributes)
    if present and b.chance(0.5):
        kept = b.axes("ReduceMean", present[b.random.randint(0, 1)], [1, 2, 3], (n, 1, 1, 1), 18, keepdims=1)
        y = b.op("Add", [y, b.reshape(kept, [n, 1, 1])], y.shape)
    return finished(b, x, y)


def group_query(b, x):
    """Several heads of queries share one of keys and values; they go on behind a past, or begin."""
    if b.symbolic:  # The lengths have the batch's extent.
        return multi_head(b, x)
    n, t, _ = x.shape
    shared, group, size = b.random.choice([1, 2, 3]), b.random.choice([1, 2, 4]), b.random.choice([16, 32])  # ONNX Runtime takes no others.
    heads = shared * group
    goes_on = (n == 1 or t == 1) and b.chance(0.7)
    room = b.random.choice([3, 8])
    lengths = b.numpy.integers(1, room + 1, n) + t if goes_on and n > 1 else np.full(n, t + (b.random.randint(1, room) if goes_on else 0))
    if goes_on and n > 1:
        lengths = np.minimum(lengths, room)
        lengths[0] = max(lengths[0], 2)
    total, packed = int(lengths.max()), b.chance(0.3)
    if packed:
        inputs = [projected(b, x, (heads + 2 * shared) * size), None, None]
    else:
        inputs = [projected(b, x, heads * size), projected(b, x, shared * size), projected(b, x, shared * size)]
    inputs += [b.input((shared, room, size)), b.input((shared, room, size))] if goes_on else [None, None]
    inputs += [b.constant((lengths - 1).astype(np.int32)), b.constant(np.array(total, np.int32))]
    attributes = {"num_heads": heads, "kv_num_heads": shared}
    if b.chance(0.5):
        angles = b.numpy.uniform(0, 6, (total, size // 2))
        inputs += [b.constant(np.cos(angles).astype(np.float32)), b.constant(np.sin(angles).astype(np.float32))]
        attributes |= {"do_rotary": 1, "rotary_interleaved": b.random.randint(0, 1)}
    choices = {"scale": 0.3, "softcap": 0.5, "local_window_size": b.random.randint(1, 6), "smooth_softmax": 1}
    attributes |= {name: value for name, value in choices.items() if b.chance(0.2)}
    present = (n, shared, max(room if goes_on else 0, total), size)
    y = b.ops("GroupQueryAttention", inputs, [(n, t, heads * size), present, present], domain=MS, **attributes)[0]
    return finished(b, x, y)


def window_attention(b, x):
    """Attention of [N, T, C] within windows of neighbours, with a bias for every window or one for each: scores of five axes."""
    n, t, c = x.shape
    size = b.random.choice([s for s in range(2, t + 1) if t % s == 0] or [t])
    heads = b.random.choice([h for h in (1, 2, 4) if c % h == 0])
    windows = t // size

    def head(order):
        y = b.op("MatMul", [x, b.floats((c, c), 1 / np.sqrt(c))], x.shape)
        return b.transpose(b.reshape(y, [n, windows, size, heads, c // heads]), order)

    q, k, v = head([0, 1, 3, 2, 4]), head([0, 1, 3, 4, 2]), head([0, 1, 3, 2, 4])
    scores = b.op("MatMul", [q, k], (n, windows, heads, size, size))
    for shape in b.random.sample([[1, 1, heads, size, size], [windows, 1, size, size], [heads, size, size], [1, windows, 1, 1, size]], b.random.randint(1, 2)):
        scores = b.op("Add" if b.chance(0.8) else "Mul", [scores, b.floats(shape)], scores.shape)
    shares = b.op("Softmax", [scores], scores.shape, axis=-1 if b.opset < 13 or b.chance(0.5) else 4)
    y = b.op("MatMul", [shares, v], (n, windows, heads, size, c // heads))
    return b.reshape(b.transpose(y, [0, 1, 3, 2, 4]), [n, t, c])


def vector_product(b, x):
    """[N, T, C] by a vector of the last axis, or a vector of the one before by it."""
    n, t, c = x.shape
    if b.chance(0.5):
        return b.op("MatMul", [x, b.floats((c,), 1 / np.sqrt(c))], (n, t))
    return b.op("MatMul", [b.floats((t,), 1 / np.sqrt(t)), x], (n, c))


ROWS = [window_attention, vector_product, multi_head, multi_head, group_query, group_query]
