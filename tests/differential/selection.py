"""Pieces of random models that take elements in order, or write them by index.

b is a Builder, x a value of two axes or more.
"""

import numpy as np


def top_k(b, x):
    """The largest or smallest elements along an axis; of equal ones it does not show which."""
    axis = b.random.randint(1, len(x.shape) - 1)
    k = b.random.randint(1, x.shape[axis])
    shape = [k if i == axis else e for i, e in enumerate(x.shape)]
    return b.ops("TopK", [x, b.ints([k])], [shape, shape], axis=axis, largest=b.random.randint(0, 1), sorted=1)[0]


def scatter(b, x):
    """Some elements, or rows, of x replaced; since opset 18 they are reduced, too, and written twice."""
    if b.symbolic:
        return x
    attributes = {"reduction": b.random.choice(["add", "mul", "max", "min"])} if b.opset >= 18 and b.chance(0.6) else {}
    count = x.shape[0] * x.shape[1]
    if b.chance(0.5):
        rows = b.numpy.choice(count, size=b.random.randint(1, count), replace=bool(attributes))
        places = np.stack([rows // x.shape[1], rows % x.shape[1]], axis=1) - np.where(rows % 2, 0, 1)[:, None] * x.shape[:2]
        return b.op("ScatterND", [x, b.constant(places.astype(np.int64)), b.floats((len(rows), *x.shape[2:]))], x.shape, **attributes)
    axis = b.random.randint(0, len(x.shape) - 1)
    shape = [b.random.randint(1, e) for e in x.shape]
    along = b.numpy.random(shape).argsort(axis)
    if attributes:
        along = along % (1 + shape[axis] // 2)
    places = along - x.shape[axis] * (along % 3 == 0)
    return b.op("ScatterElements", [x, b.constant(places.astype(np.int64)), b.floats(shape)], x.shape, axis=axis, **attributes)


ANY = [top_k, scatter]
