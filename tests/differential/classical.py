"""ai.onnx.ml: features that are scaled and chosen, and trees, linear models and support vector machines on them.

b is a Builder, x rows [N, features].
"""

import numpy as np
from onnx import TensorProto

import blocks

ML = "ai.onnx.ml"
POSTS = ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"]  # PROBIT is for sums within (0, 1) alone.
MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]
KERNELS = {"LINEAR": [0.0, 0.0, 0.0], "POLY": [0.25, 1.0, 3.0], "RBF": [0.5, 0.0, 0.0], "SIGMOID": [0.1, 0.5, 0.0]}


def ml(b, op, inputs, shape, **attributes):
    return b.op(op, inputs, shape, domain=ML, **attributes)


# ---- Features


def scaler(b, x):
    count = b.random.choice([1, x.shape[1]])
    return ml(b, "Scaler", [x], x.shape, offset=b.numpy.normal(size=count).tolist(), scale=b.numpy.uniform(0.5, 1.5, count).tolist())


def normalizer(b, x):
    return ml(b, "Normalizer", [x], x.shape, norm=b.random.choice(["L1", "L2"]))


def imputer(b, x):
    """In place of zeros, which a Relu makes."""
    count = b.random.choice([1, x.shape[1]])
    zeros = b.op("Relu", [x], x.shape)
    return ml(b, "Imputer", [zeros], x.shape, imputed_value_floats=b.numpy.normal(size=count).tolist(), replaced_value_float=0.0)


def binarizer(b, x):
    return ml(b, "Binarizer", [x], x.shape, threshold=b.random.choice([0.0, 0.3]))


def side_by_side(b, x):
    """Two sets of features."""
    others = [x, b.random.choice([scaler, binarizer, blocks.activation])(b, x)]
    return ml(b, "FeatureVectorizer", others, (x.shape[0], 2 * x.shape[1]), inputdimensions=[x.shape[1]] * 2)


def chosen(b, x):
    which = [b.random.randrange(x.shape[1]) for _ in range(b.random.randint(1, x.shape[1]))]
    return ml(b, "ArrayFeatureExtractor", [x, b.ints(which)], (x.shape[0], len(which)))


def one_hot(b, x):
    """The first feature, rounded down, among classes; what is none of them is zeros."""
    first = ml(b, "ArrayFeatureExtractor", [x, b.ints([0])], (x.shape[0], 1))
    whole = b.op("Cast", [b.op("Floor", [first], first.shape)], first.shape, to=TensorProto.INT64)
    found = ml(b, "OneHotEncoder", [whole], (x.shape[0], 1, 3), cats_int64s=b.random.sample(range(-2, 2), 3), zeros=1)
    return b.reshape(found, (x.shape[0], 3))


def labelled(b, x):
    """The first feature, rounded down, as the numbers that a table has for them."""
    whole = b.op("Cast", [b.op("Floor", [x], x.shape)], x.shape, to=TensorProto.INT64)
    keys = b.random.sample(range(-3, 3), 4)
    return ml(b, "LabelEncoder", [whole], x.shape, keys_int64s=keys, values_floats=b.numpy.normal(size=4).tolist(), default_float=0.5)


# ---- Models


class Forest:
    """`least` trees or more in the operators' lists; `gifts(tree)` says what a leaf gives: pairs of target and weight."""

    NAMES = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids", "missing_value_tracks_true")

    def __init__(self, b, features, gifts, least=1):
        self.b, self.features, self.gifts = b, features, gifts
        self.depth, self.modes = b.random.randint(1, 6), b.random.choice([MODES[:1], MODES[:1], MODES[1:2], MODES[:4], MODES])
        self.nodes, self.leaves = [], []
        for tree in range(b.random.choice([count for count in (1, 3, 9, 20) if count >= least])):
            self.grow(tree, [0], 0)

    def grow(self, tree, count, level):
        """Adds a node and all below it, in depth-first order; answers its number."""
        b, number, at = self.b, count[0], len(self.nodes)
        count[0] += 1
        if level == self.depth or (level > 0 and b.chance(0.15)):
            self.nodes.append((tree, number, 0, "LEAF", 0.0, 0, 0, 0))
            self.leaves += [(tree, number, target, weight) for target, weight in self.gifts(tree)]
            return number
        self.nodes.append(None)
        split = b.numpy.normal() if b.chance(0.7) else b.random.randint(-8, 0) / 8
        sides = [self.grow(tree, count, level + 1) for _ in range(2)]
        self.nodes[at] = (tree, number, b.random.randrange(self.features), b.random.choice(self.modes), float(split), *sides, 0)
        return number

    def attributes(self, kind):
        lists = {f"nodes_{name}": list(values) for name, values in zip(self.NAMES, zip(*self.nodes))}
        names = [f"{kind}_{name}" for name in ("treeids", "nodeids", "ids", "weights")]
        return lists | dict(zip(names, map(list, zip(*self.leaves))))


def forest_regressor(b, x):
    targets = b.random.choice([1, 1, 3])
    in_turn = b.chance(0.3)

    def gifts(tree):
        return [(t, float(b.numpy.normal()) / 3) for t in ([tree % targets] if in_turn else range(targets))]

    # ONNX Runtime forgets the base of a target that no tree gives to.
    attributes = Forest(b, x.shape[1], gifts, targets if in_turn else 1).attributes("target")
    if b.chance(0.4):
        attributes["base_values"] = b.numpy.normal(size=targets).tolist()
    how = {"aggregate_function": b.random.choice(["SUM", "SUM", "AVERAGE", "MIN", "MAX"]), "post_transform": b.random.choice(POSTS)}
    if in_turn:  # What trees give to other targets is no element of a mean or of a smallest.
        how["aggregate_function"] = "SUM"
    return ml(b, "TreeEnsembleRegressor", [x], (x.shape[0], targets), n_targets=targets, **attributes, **how)


def classified(b, op, x, classes, **attributes):
    """Labels that become reals beside the scores, or the scores alone."""
    label, scores = b.ops(op, [x], [x.shape[:1], (x.shape[0], classes)], domain=ML, **attributes)
    if b.chance(0.5):
        return scores
    number = b.op("Cast", [label], label.shape, to=TensorProto.FLOAT)
    number = b.op("Mul", [number, b.scalar(0.1)], number.shape)
    return b.op("Concat", [scores, b.reshape(number, (x.shape[0], 1))], (x.shape[0], classes + 1), axis=1)


def labels(b, classes):
    return list(range(classes)) if classes == 2 or b.chance(0.5) else [10 * i + 3 for i in range(classes)]


def forest_classifier(b, x):
    classes = b.random.choice([2, 2, 3, 7])
    kind = b.random.choice(["one score", "each class", "in turn"])
    if kind == "one score":  # Of two classes: one weight a leaf.
        classes = 2

    def gifts(tree):
        if kind == "one score":
            return [(0, float(b.numpy.uniform(-1, 1)))]
        return [(k, float(b.numpy.uniform(0, 1)) / 9) for k in ([tree % classes] if kind == "in turn" else range(classes))]

    attributes = Forest(b, x.shape[1], gifts, classes if kind == "in turn" else 1).attributes("class")
    if kind != "one score" and b.chance(0.3):
        attributes["base_values"] = b.numpy.normal(size=classes).tolist()
    return classified(b, "TreeEnsembleClassifier", x, classes, classlabels_int64s=labels(b, classes), post_transform=b.random.choice(POSTS), **attributes)


def linear_regressor(b, x):
    targets = b.random.choice([1, 3])
    weights = (b.numpy.normal(size=targets * x.shape[1]) / np.sqrt(x.shape[1])).tolist()
    how = {"post_transform": b.random.choice(POSTS)}
    if how["post_transform"] == "SOFTMAX_ZERO" or b.chance(0.7):  # Of zeros alone it is NaN in ONNX Runtime.
        how["intercepts"] = b.numpy.normal(size=targets).tolist()
    return ml(b, "LinearRegressor", [x], (x.shape[0], targets), coefficients=weights, targets=targets, **how)


def linear_classifier(b, x):
    classes = b.random.choice([2, 3, 5])
    weights = (b.numpy.normal(size=classes * x.shape[1]) / np.sqrt(x.shape[1])).tolist()
    how = {"intercepts": b.numpy.normal(size=classes).tolist(), "post_transform": b.random.choice(POSTS)}
    return classified(b, "LinearClassifier", x, classes, coefficients=weights, classlabels_ints=labels(b, classes), **how)


def kernel(b):
    name = b.random.choice(list(KERNELS))
    return {"kernel_type": name, "kernel_params": KERNELS[name]}


def svm_regressor(b, x):
    count = b.random.randint(1, 9)
    vectors = b.numpy.normal(size=count * x.shape[1]) / np.sqrt(x.shape[1])
    how = {"coefficients": b.numpy.normal(size=count).tolist(), "rho": [0.1], "one_class": int(b.chance(0.2))}
    return ml(b, "SVMRegressor", [x], (x.shape[0], 1), n_supports=count, support_vectors=vectors.tolist(), **how, **kernel(b))


def svm_classifier(b, x):
    classes = b.random.choice([2, 3, 4])
    per_class = [b.random.randint(1, 4) for _ in range(classes)]
    count, pairs = sum(per_class), classes * (classes - 1) // 2
    attributes = {
        "vectors_per_class": per_class, "support_vectors": (b.numpy.normal(size=count * x.shape[1]) / np.sqrt(x.shape[1])).tolist(),
        "coefficients": b.numpy.normal(size=count * (classes - 1)).tolist(), "rho": b.numpy.normal(size=pairs).tolist(),
    }  # fmt: skip
    scores = classes
    if b.chance(0.5):
        attributes |= {"prob_a": b.numpy.uniform(-2, -0.5, pairs).tolist(), "prob_b": b.numpy.uniform(-0.2, 0.2, pairs).tolist()}
    elif classes > 2:
        scores = pairs
    return classified(b, "SVMClassifier", x, scores, classlabels_ints=list(range(classes)), **attributes, **kernel(b))


FEATURES = [scaler, scaler, normalizer, imputer, binarizer, side_by_side, chosen, one_hot, labelled]
MODELS = [forest_regressor, forest_classifier, linear_regressor, linear_classifier, svm_regressor, svm_classifier]
