#!/usr/bin/env python3
"""ai.onnx.ml as skl2onnx and onnxmltools write it: Octet answers as ONNX Runtime does, and serves it.

usage: classical_models_test.py OCTET

Each model is made of seeded random numbers. The trees of an ensemble are grown to different depths, on few features, so that
every branch is taken; inputs are multiples of 1/8, and splits lie on some of them.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from served_client import ServedClient

OCTET = ""
ML = "ai.onnx.ml"
FEATURES = 5
POSTS = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT")
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")


class Forest:
    """Trees in the older operators' lists; `leaf(rng)` says what a leaf gives: pairs of target and weight."""

    def __init__(self, rng, trees, depth, leaf, modes=("BRANCH_LEQ",), missing=False, splits=(-12, 13)):
        self.rng, self.depth, self.leaf, self.modes, self.missing, self.splits = rng, depth, leaf, modes, missing, splits
        names = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids",
                 "missing_value_tracks_true")
        self.nodes = {name: [] for name in names}
        self.gifts = []
        for tree in range(trees):
            self.grow(tree, [0], 0)

    def grow(self, tree, count, level):
        """Adds a node and all below it, in depth-first order; answers its number."""
        rng, number = self.rng, count[0]
        count[0] += 1
        at = len(self.nodes["nodeids"])
        is_leaf = level == self.depth or (level > 0 and rng.random() < 0.15)
        row = {"treeids": tree, "nodeids": number, "featureids": 0, "modes": "LEAF", "values": 0.0, "truenodeids": 0,
               "falsenodeids": 0, "missing_value_tracks_true": 0}
        if not is_leaf:
            row |= {"featureids": int(rng.integers(FEATURES)), "modes": str(rng.choice(self.modes)),
                    "values": float(rng.integers(*self.splits)) / 8,
                    "missing_value_tracks_true": int(self.missing and rng.random() < 0.5)}
        for name, value in row.items():
            self.nodes[name].append(value)
        if is_leaf:
            self.gifts += [(tree, number, target, weight) for target, weight in self.leaf(rng, tree)]
        else:
            self.nodes["truenodeids"][at] = self.grow(tree, count, level + 1)
            self.nodes["falsenodeids"][at] = self.grow(tree, count, level + 1)
        return number

    def attributes(self, kind):
        lists = {f"nodes_{name}": values for name, values in self.nodes.items()}
        columns = list(zip(*self.gifts))
        return lists | dict(zip((f"{kind}_{name}" for name in ("treeids", "nodeids", "ids", "weights")), map(list, columns)))


def model_of(node, inputs, outputs, constants=()):
    nodes = node if isinstance(node, list) else [node]
    graph = helper.make_graph(nodes, "net", inputs, [helper.make_empty_tensor_value_info(name) for name in outputs],
                              list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)], ir_version=8)


def ml(op, outputs, **attributes):
    return helper.make_node(op, ["x"], outputs, name="tested", domain=ML, **attributes)


def rows(rng, count=37, dtype=numpy.float32):
    return (rng.integers(-16, 17, (count, FEATURES)) / (8 if numpy.dtype(dtype).kind == "f" else 1)).astype(dtype)


def info(array, name="x"):
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None, *array.shape[1:]])


def runtime(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def as_tensor(array):
    if array.dtype.kind in "OU":
        return helper.make_tensor("", TensorProto.STRING, array.shape, [str(word).encode() for word in array.ravel()])
    return numpy_helper.from_array(array)


class OracleTest(unittest.TestCase):
    """`octet check` against what ONNX Runtime answers."""

    def compare(self, model, x, *flags):
        answers = runtime(model).run(None, {"x": x})
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "model.onnx").write_bytes(model.SerializeToString())
            data = folder / "golden/test_data_set_0"
            data.mkdir(parents=True)
            (data / "input_0.pb").write_bytes(as_tensor(x).SerializeToString())
            for i, array in enumerate(answers):
                (data / f"output_{i}.pb").write_bytes(as_tensor(numpy.asarray(array)).SerializeToString())
            done = subprocess.run([OCTET, "check", folder / "model.onnx", "--golden", folder / "golden", *flags],
                                  capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 0, f"{done.stdout}{done.stderr}")

    def classifier(self, forest, labels, **attributes):
        kind = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_int64s"
        return ml("TreeEnsembleClassifier", ["label", "scores"], **forest.attributes("class"), **{kind: labels}, **attributes)

    def test_one_score_for_two_classes(self):
        # Random forests and boosted trees of two classes: one weight a leaf, for class 0.
        for seed, (low, post, base) in enumerate(
            [(low, post, base) for low in (0, -1) for post in POSTS[:4] for base in (None, [0.125])]):
            rng = numpy.random.default_rng(seed)
            forest = Forest(rng, 9, 6, lambda r, _: [(0, float(r.uniform(low, 1)) / 9)])
            with self.subTest(low=low, post=post, base=base):
                extra = {} if base is None else {"base_values": base}
                x = rows(rng)
                self.compare(model_of(self.classifier(forest, [0, 1], post_transform=post, **extra), [info(x)],
                                      ["label", "scores"]), x)

    def test_scores_for_each_class(self):
        for seed, (classes, post) in enumerate([(classes, post) for classes in (2, 3, 7) for post in POSTS]):
            rng = numpy.random.default_rng(100 + seed)
            # Within (0, 1) after the sum, where PROBIT is defined.
            forest = Forest(rng, 8, 5, lambda r, _: [(k, float(r.uniform(0.01, 0.99)) / 8) for k in range(classes)])
            with self.subTest(classes=classes, post=post):
                x = rows(rng)
                self.compare(model_of(self.classifier(forest, list(range(classes)), post_transform=post), [info(x)],
                                      ["label", "scores"]), x)

    def test_a_tree_for_each_class_in_turn(self):
        # Boosting: tree t gives to class t mod K alone.
        for seed, post in enumerate(POSTS[:4]):
            rng = numpy.random.default_rng(200 + seed)
            forest = Forest(rng, 12, 6, lambda r, tree: [(tree % 4, float(r.normal()))])
            with self.subTest(post=post):
                x = rows(rng, 300)
                self.compare(model_of(self.classifier(forest, [10, 20, 30, 40], post_transform=post,
                                                      base_values=[0.5, -0.5, 0.25, 0.0]), [info(x)], ["label", "scores"]), x)

    def test_labels_of_text(self):
        rng = numpy.random.default_rng(300)
        forest = Forest(rng, 12, 5, lambda r, tree: [(tree % 3, float(r.normal()))])
        x = rows(rng)
        model = model_of(self.classifier(forest, ["setosa", "versicolor", "virginica"], post_transform="SOFTMAX"), [info(x)],
                         ["label", "scores"])
        self.compare(model, x)
        self.compare(model, x, "--disable-pass", "expand_functions")

    def test_types_of_rows(self):
        rng = numpy.random.default_rng(400)
        forest = Forest(rng, 6, 6, lambda r, _: [(0, float(r.normal()))])
        for dtype in (numpy.float32, numpy.float64, numpy.int32, numpy.int64):
            with self.subTest(dtype=dtype.__name__):
                x = rows(rng, dtype=dtype)
                self.compare(model_of(self.classifier(forest, [0, 1], post_transform="LOGISTIC"), [info(x)],
                                      ["label", "scores"]), x)

    def test_what_branches_ask(self):
        for seed, modes in enumerate([[mode] for mode in MODES] + [list(MODES)]):
            for missing in (False, True):
                rng = numpy.random.default_rng(500 + seed)
                # ONNX Runtime 1.21 goes to other leaves where branches ask whether x is a whole number from 1 on, 1.5 among them.
                splits = (-12, 1) if modes == ["BRANCH_EQ"] else (-12, 13)
                forest = Forest(rng, 7, 7, lambda r, _: [(0, float(r.normal()))], modes, missing, splits)
                with self.subTest(modes=modes, missing=missing):
                    x = rows(rng, 80)
                    if missing and "BRANCH_NEQ" not in modes:  # ONNX Runtime: a NaN is not equal, wherever it is sent.
                        x[rng.random(x.shape) < 0.2] = numpy.nan
                    node = ml("TreeEnsembleRegressor", ["y"], n_targets=1, **forest.attributes("target"))
                    self.compare(model_of(node, [info(x)], ["y"]), x)

    def test_regressors(self):
        for seed, (targets, aggregate, post) in enumerate(
            [(t, a, p) for t in (1, 3) for a in ("SUM", "AVERAGE", "MIN", "MAX") for p in POSTS]):
            rng = numpy.random.default_rng(600 + seed)
            # Each tree's leaves give to every target; sums stay within (0, 1).
            forest = Forest(rng, 6, 4, lambda r, _: [(t, float(r.uniform(0.01, 0.9)) / 7) for t in range(targets)])
            with self.subTest(targets=targets, aggregate=aggregate, post=post):
                x = rows(rng)
                node = ml("TreeEnsembleRegressor", ["y"], n_targets=targets, aggregate_function=aggregate, post_transform=post,
                          base_values=[0.01 * (t + 1) for t in range(targets)], **forest.attributes("target"))
                self.compare(model_of(node, [info(x)], ["y"]), x)

    def test_linear_classifiers(self):
        for seed, (classes, post) in enumerate([(classes, post) for classes in (1, 2, 5) for post in POSTS[:4]]):
            rng = numpy.random.default_rng(700 + seed)
            for labels in ([3, 4], ["no", "yes"]) if classes < 3 else ([1, 2, 3, 4, 5],):
                with self.subTest(classes=classes, post=post, labels=labels):
                    kind = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_ints"
                    node = ml("LinearClassifier", ["label", "scores"], coefficients=rng.normal(size=classes * FEATURES).tolist(),
                              intercepts=rng.normal(size=classes).tolist(), post_transform=post, **{kind: labels})
                    x = rows(rng)
                    self.compare(model_of(node, [info(x)], ["label", "scores"]), x)

    def test_linear_regressors(self):
        for post in POSTS[:4]:
            rng = numpy.random.default_rng(750)
            node = ml("LinearRegressor", ["y"], coefficients=rng.normal(size=3 * FEATURES).tolist(), targets=3,
                      intercepts=rng.normal(size=3).tolist(), post_transform=post)
            x = rows(rng)
            with self.subTest(post=post):
                self.compare(model_of(node, [info(x)], ["y"]), x)

    def svm(self, kernel):
        parameters = {"LINEAR": [0.0, 0.0, 0.0], "POLY": [0.25, 1.0, 3.0], "RBF": [0.5, 0.0, 0.0], "SIGMOID": [0.1, 0.5, 0.0]}
        return {"kernel_type": kernel, "kernel_params": parameters[kernel]}

    def test_support_vector_classifiers(self):
        for seed, (classes, kernel, probabilities) in enumerate(
            [(c, k, p) for c in (2, 4) for k in ("LINEAR", "POLY", "RBF", "SIGMOID") for p in (False, True)]):
            rng = numpy.random.default_rng(800 + seed)
            per_class = [int(n) for n in rng.integers(2, 6, classes)]
            vectors, pairs = sum(per_class), classes * (classes - 1) // 2
            attributes = self.svm(kernel) | {
                "vectors_per_class": per_class, "support_vectors": rng.normal(size=vectors * FEATURES).tolist(),
                "coefficients": rng.normal(size=vectors * (classes - 1)).tolist(), "rho": rng.normal(size=pairs).tolist(),
                "classlabels_ints": list(range(classes))}
            if probabilities:
                attributes |= {"prob_a": rng.uniform(-2, -0.5, pairs).tolist(), "prob_b": rng.uniform(-0.2, 0.2, pairs).tolist()}
            x = rows(rng)
            with self.subTest(classes=classes, kernel=kernel, probabilities=probabilities):
                self.compare(model_of(ml("SVMClassifier", ["label", "scores"], **attributes), [info(x)], ["label", "scores"]), x)

    def test_linear_support_vector_classifiers(self):
        for classes in (2, 4):
            rng = numpy.random.default_rng(850 + classes)
            node = ml("SVMClassifier", ["label", "scores"], coefficients=rng.normal(size=classes * FEATURES).tolist(),
                      rho=[0.25], kernel_params=[0.0, 0.0, 0.0], classlabels_strings=["a", "b", "c", "d"][:classes])
            x = rows(rng)
            with self.subTest(classes=classes):
                self.compare(model_of(node, [info(x)], ["label", "scores"]), x)

    def test_support_vector_regressors(self):
        for seed, (kernel, one_class) in enumerate(
            [(k, o) for k in ("LINEAR", "POLY", "RBF", "SIGMOID") for o in (0, 1)]):
            rng = numpy.random.default_rng(900 + seed)
            node = ml("SVMRegressor", ["y"], n_supports=9, support_vectors=rng.normal(size=9 * FEATURES).tolist(),
                      coefficients=rng.normal(size=9).tolist(), rho=[0.1], one_class=one_class, **self.svm(kernel))
            x = rows(rng)
            with self.subTest(kernel=kernel, one_class=one_class):
                self.compare(model_of(node, [info(x)], ["y"]), x)

    def test_features(self):
        rng = numpy.random.default_rng(1000)
        x = rows(rng)
        holes = x.copy()
        holes[rng.random(x.shape) < 0.3] = numpy.nan
        whole = rows(rng, dtype=numpy.int64)
        words = numpy.array([["cat", "dog"], ["cow", "cat"]], object)
        for title, node, given in [
            ("Imputer", ml("Imputer", ["y"], imputed_value_floats=[1.0, 2.0, 3.0, 4.0, 5.0], replaced_value_float=numpy.nan), holes),
            ("Imputer of one", ml("Imputer", ["y"], imputed_value_floats=[7.0], replaced_value_float=0.0), x),
            ("Imputer of integers", ml("Imputer", ["y"], imputed_value_int64s=[9], replaced_value_int64=-3), whole),
            ("OneHotEncoder", ml("OneHotEncoder", ["y"], cats_int64s=[-3, 0, 2, 5]), whole),
            ("OneHotEncoder of reals", ml("OneHotEncoder", ["y"], cats_int64s=[-1, 0, 1]), x),
            ("OneHotEncoder of words", ml("OneHotEncoder", ["y"], cats_strings=["dog", "cat"]), words),
            ("FeatureVectorizer", ml("FeatureVectorizer", ["y"], inputdimensions=[7]), whole),
            ("Scaler", ml("Scaler", ["y"], offset=[1.0] * 5, scale=[0.5, 1.0, 2.0, 3.0, 4.0]), x),
            ("Normalizer", ml("Normalizer", ["y"], norm="L2"), x),
            ("Binarizer", ml("Binarizer", ["y"], threshold=0.25), x),
        ]:
            with self.subTest(title):
                kind = TensorProto.STRING if given.dtype == object else helper.np_dtype_to_tensor_dtype(given.dtype)
                tensor = helper.make_tensor_value_info("x", kind, [None, given.shape[1]])
                self.compare(model_of(node, [tensor], ["y"]), given)


def pipeline(path):
    """What skl2onnx writes for a pipeline of a scaler and a random forest with its defaults: a label, and a sequence of maps."""
    rng = numpy.random.default_rng(7)
    forest = Forest(rng, 10, 5, lambda r, _: [(0, float(r.uniform(0, 1)) / 10)])
    nodes = [
        helper.make_node("Scaler", ["X"], ["variable"], domain=ML, offset=[0.0] * FEATURES, scale=[0.5] * FEATURES),
        helper.make_node("TreeEnsembleClassifier", ["variable"], ["label", "probabilities"], domain=ML, post_transform="NONE",
                         classlabels_int64s=[0, 1], **forest.attributes("class")),
        helper.make_node("Cast", ["label"], ["output_label"], to=TensorProto.INT64),
        helper.make_node("ZipMap", ["probabilities"], ["output_probability"], domain=ML, classlabels_int64s=[0, 1]),
    ]
    maps = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])))
    outputs = [helper.make_tensor_value_info("output_label", TensorProto.INT64, [None]),
               helper.make_value_info("output_probability", maps)]
    graph = helper.make_graph(nodes, "pipeline", [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, FEATURES])], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(ML, 1)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


class ServedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = ServedClient(OCTET, {"iris": pipeline})

    @classmethod
    def tearDownClass(cls):
        cls.client.close()

    def test_a_pipeline_with_a_zipmap(self):
        stub, messages = self.client.stub, self.client.messages
        x = rows(numpy.random.default_rng(8), 6)
        session = onnxruntime.InferenceSession(str(self.client.folder / "models/iris/1/fp32.onnx"),
                                               providers=["CPUExecutionProvider"])
        labels, maps = session.run(None, {"X": x})
        request = messages.ModelInferRequest(model_name="iris")
        request.inputs.add(name="X", datatype="FP32", shape=x.shape)
        request.raw_input_contents.append(x.tobytes())
        response = stub.ModelInfer(request, timeout=20)
        self.assertEqual([o.name for o in response.outputs], ["output_label", "output_probability"])
        self.assertEqual([list(o.shape) for o in response.outputs], [[6], [6, 2]])
        self.assertEqual(numpy.frombuffer(response.raw_output_contents[0], numpy.int64).tolist(), labels.tolist())
        scores = numpy.frombuffer(response.raw_output_contents[1], numpy.float32).reshape(6, 2)
        numpy.testing.assert_allclose(scores, [[row[0], row[1]] for row in maps], rtol=1e-5)

    def test_it_batches_and_the_certificate_tells_of_the_map(self):
        stub, messages = self.client.stub, self.client.messages
        config = stub.ModelConfig(messages.ModelConfigRequest(name="iris"), timeout=20).config
        self.assertGreater(config.max_batch_size, 0)
        shown = subprocess.run([OCTET, "inspect", self.client.folder / "models/iris/1/fp32.onnx", "--json"],
                               capture_output=True, text=True, timeout=60, check=True)
        layers = json.loads(shown.stdout)["layers"]
        self.assertIn("octet:scores_for_map", [layer["impl"] for layer in layers if "ZipMap" in str(layer)])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
