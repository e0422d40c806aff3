#!/usr/bin/env python3
"""Tests what the models are made into: a batch of inputs, a file for a batch, an encoder of one layer."""

import pathlib
import tempfile
import unittest

import bert
import catalog
import exports
import light
import numpy as np
import onnx
import onnx.reference
import peak
from onnx import TensorProto, helper, numpy_helper


def save(folder, name, shape, inputs=1, reshape_to=None):
    """Writes a model y = Reshape(x) or, without a shape for it, y = x0 + x1 + ..."""
    names = [f"x{i}" for i in range(inputs)]
    if reshape_to:
        node, weights = helper.make_node("Reshape", ["x0", "to"], ["y"]), [numpy_helper.from_array(np.array(reshape_to), "to")]
    else:
        node, weights = helper.make_node("Sum", names, ["y"]), []
    values = [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape) for value in names]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, reshape_to or shape)
    graph = helper.make_graph([node], "net", values, [output], weights)
    file = pathlib.Path(folder, f"{name}.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), file)
    return file


def light_network(folder):
    """Writes a network whose constants are one number repeated, made by ConstantOfShape as ONNX's light ones are."""
    shapes = {"w": [4, 3, 3, 3], "b": [4], "gain": [4], "offset": [4], "mean": [4], "var": [4], "fc": [256, 10], "fb": [10]}
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.02])
    nodes = [helper.make_node("ConstantOfShape", [f"{name}_shape"], [name], value=value) for name in shapes]
    nodes += [
        helper.make_node("Conv", ["x", "w", "b"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["conv", "gain", "offset", "mean", "var"], ["bn"]),
        helper.make_node("Relu", ["bn"], ["relu"]),
        helper.make_node("Gemm", ["flat", "fc", "fb"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["y"]),
    ]
    nodes.insert(-2, helper.make_node("Flatten", ["relu"], ["flat"]))
    weights = [numpy_helper.from_array(np.array(shape, np.int64), f"{name}_shape") for name, shape in shapes.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])]
    # As in IR version 3, constants are inputs, too.
    inputs += [helper.make_tensor_value_info(w.name, TensorProto.INT64, w.dims) for w in weights]
    graph = helper.make_graph(nodes, "net", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])], weights)
    file = pathlib.Path(folder, "light_tiny.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=3), file)
    return file


class CatalogTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_an_open_batch_needs_no_other_file(self):
        file = save(self.folder, "open", ["N", 6])
        self.assertEqual(catalog.for_batch(file, 8, self.folder), file)

    def test_a_fixed_batch_is_written_anew(self):
        file = save(self.folder, "fixed", [1, 2, 3], reshape_to=[1, 6])
        self.assertEqual(catalog.for_batch(file, 1, self.folder), file)
        copy = catalog.for_batch(file, 8, self.folder)
        self.assertNotEqual(copy, file)
        inferred = onnx.shape_inference.infer_shapes(onnx.load(copy), check_type=True, strict_mode=True)
        self.assertEqual(catalog.inputs_of(copy), [("x0", TensorProto.FLOAT, [8, 2, 3])])
        self.assertEqual([d.dim_value for d in inferred.graph.output[0].type.tensor_type.shape.dim], [8, 6])
        self.assertEqual(catalog.inputs_of(file), [("x0", TensorProto.FLOAT, [1, 2, 3])])

    def test_a_batch_that_is_more_than_an_extent_is_left_alone(self):
        for file in (save(self.folder, "two", [1, 3], inputs=2), save(self.folder, "odd", [3, 3])):
            with self.assertRaisesRegex(catalog.NotMeasured, "fixes the batch"):
                catalog.for_batch(file, 8, self.folder)

    def test_inputs_are_rows_of_the_data_set_as_the_model_sees_them(self):
        file = save(self.folder, "net", ["N", 2, 1])
        np.savez(self.folder / "data.npz", inputs=np.arange(6, dtype=np.uint8).reshape(3, 2, 1))
        (self.folder / "model.yaml").write_text("inputs: {x0: {wire: {datatype: UINT8, scale: [1, 10], zero_point: [0, 1]}}}")
        model = catalog.Model("net", file, data=self.folder / "data.npz", map=self.folder / "model.yaml")
        (array,) = catalog.feed(model, file, 2).values()
        self.assertEqual(array.tolist(), [[[0], [0]], [[2], [20]]])

    def test_without_a_data_set_inputs_are_the_same_random_numbers(self):
        file = save(self.folder, "net", ["N", 3], inputs=2)
        first, again = (catalog.feed(catalog.Model("net", file), file, 4) for _ in range(2))
        self.assertEqual({name: array.shape for name, array in first.items()}, {"x0": (4, 3), "x1": (4, 3)})
        self.assertEqual({name: array.tolist() for name, array in first.items()}, {k: v.tolist() for k, v in again.items()})

    def test_extents_that_only_a_request_knows_are_not_measured(self):
        file = save(self.folder, "net", ["N", "length"])
        with self.assertRaisesRegex(catalog.NotMeasured, "'x0' open"):
            catalog.feed(catalog.Model("net", file), file, 1)

    def test_models_are_selected_by_pattern(self):
        models = [catalog.Model(name) for name in ("light_a", "light_b", "other")]
        names = [model.name for model in catalog.select(models, ["light_*"])]
        self.assertEqual(names, ["light_a", "light_b"])
        with self.assertRaisesRegex(ValueError, "no model is called 'heavy'; there are light_a"):
            catalog.select(models, ["light_*", "heavy"])


class WrittenModelTest(unittest.TestCase):
    """Models that no file holds before they are measured."""

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_what_the_exporter_says_is_the_reason(self):
        images = self.folder / "images.npz"
        np.savez(images, inputs=np.zeros((2, 3, 8, 8), np.float32))
        model = catalog.Model(f"{catalog.TORCHVISION}no_such_network", calibration=images)
        with self.assertRaisesRegex(catalog.NotMeasured, "exports.py fails: .*(no_such_network|torch)"):
            catalog.made(model, self.folder, exports, ["no_such_network"], 2)
        self.assertEqual(list(self.folder.glob("exports/*")), [])

    def test_without_images_there_is_no_export(self):
        with self.assertRaisesRegex(catalog.NotMeasured, "no images"):
            catalog.made(catalog.Model(f"{catalog.TORCHVISION}resnet50"), self.folder, exports, ["resnet50"], 1)

    def test_a_light_network_gets_weights(self):
        source = light_network(self.folder)
        images = np.random.default_rng(2).random((2, 3, 8, 8), np.float32)
        np.savez(self.folder / "images.npz", inputs=images)
        model = catalog.Model("light_tiny", calibration=self.folder / "images.npz")
        filled = onnx.load(catalog.made(model, self.folder, light, [source], 1))
        onnx.checker.check_model(filled, full_check=True)
        self.assertEqual([node.op_type for node in filled.graph.node], ["Conv", "BatchNormalization", "Relu", "Flatten", "Gemm", "Softmax"])
        answers = [onnx.reference.ReferenceEvaluator(filled).run(None, {"x": image[None]})[0] for image in images]
        # Not one number repeated, and another one for another image.
        self.assertGreater(answers[0].max(), 3 * answers[0].min())
        self.assertGreater(np.abs(answers[0] - answers[1]).max(), 0.01)
        again = onnx.load(catalog.made(model, self.folder / "again", light, [source], 1))
        self.assertEqual(filled.SerializeToString(), again.SerializeToString())

    def test_a_model_of_a_file_stays_as_it_is(self):
        model = catalog.Model("net", self.folder / "net.onnx")
        catalog.write(model, self.folder)
        self.assertEqual(model, catalog.Model("net", self.folder / "net.onnx"))


class PeakTest(unittest.TestCase):
    def test_layers_are_valid_graphs(self):
        for x_shape, w_shape in peak.LAYERS.values():
            for int8 in (False, True):
                made = onnx.shape_inference.infer_shapes(peak.model(x_shape, w_shape, int8), check_type=True, strict_mode=True)
                onnx.checker.check_model(made, full_check=True)

    def test_the_fastest_layer_counts(self):
        class Side:
            def __init__(self, file):
                self.rounds = [{"primitive_sum_ms": 2.0, "macs": 3e6}, {"primitive_sum_ms": 1.0, "macs": 3e6}]
                self.rounds[1]["primitive_sum_ms"] = 0.5 if "product-int8" in file.name else 1.0

            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

            def round(self, seconds):
                pass

        for precision, best in (("fp32", 3e9), ("bf16", 3e9), ("int8", 6e9)):
            self.assertEqual(peak.measure(lambda file, arrays, kind: Side(file), self.folder(), 1, 0.1, precision), best)

    def folder(self):
        return pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))


class BertTest(unittest.TestCase):
    def test_a_layer_is_a_valid_graph_of_its_shapes(self):
        model = bert.model(layers=1)
        onnx.checker.check_model(model, full_check=True)
        weights = sum(numpy_helper.to_array(tensor).size for tensor in model.graph.initializer)
        self.assertAlmostEqual(weights, 4 * 768 * 768 + 2 * 768 * 3072, delta=1e4)
        (output,) = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output
        self.assertEqual([d.dim_value for d in output.type.tensor_type.shape.dim], [0, 128, 768])


if __name__ == "__main__":
    unittest.main()
