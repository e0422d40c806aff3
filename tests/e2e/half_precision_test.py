#!/usr/bin/env python3
"""Models that are FLOAT16 or BFLOAT16 throughout, as exporters and converters write them: they run on the kernels of any other model, and are
quantized, trained and reported on like it; so are models of DOUBLE.

usage: half_precision_test.py OCTET
"""

import json
import pathlib
import shutil
import tempfile
import unittest

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import octet_process
import served_models
from demo_model import CALIBRATION, FP32, MAP, TEST, mapped
from octet_process import answer, octet
from served_client import ServedClient

HAS_BF16 = "avx512_bf16" in pathlib.Path("/proc/cpuinfo").read_text()


def narrow_tensor(tensor, to):
    reals = numpy_helper.to_array(tensor)
    if to in (TensorProto.FLOAT16, TensorProto.DOUBLE):
        return numpy_helper.from_array(reals.astype(np.float16 if to == TensorProto.FLOAT16 else np.float64), tensor.name)
    bits = reals.view(np.uint32)
    bits = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)  # Half to even.
    return helper.make_tensor(tensor.name, to, tensor.dims, bits.tobytes(), raw=True)


def narrowed(model, to, interface):
    """Returns the model with every FLOAT of it turned into `to`; behind Casts of its inputs and outputs unless `interface`."""
    narrow = onnx.ModelProto()
    narrow.CopyFrom(model)
    graph = narrow.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(narrow_tensor(tensor, to))
    nodes = list(graph.node)
    if interface:
        for value in (*graph.input, *graph.output):
            value.type.tensor_type.elem_type = to
    else:
        inputs = {value.name: f"{value.name}_narrow" for value in graph.input}
        outputs = {value.name: f"{value.name}_narrow" for value in graph.output}
        for node in nodes:
            node.input[:] = [(inputs | outputs).get(name, name) for name in node.input]
            node.output[:] = [outputs.get(name, name) for name in node.output]
        nodes = [helper.make_node("Cast", [wide], [name], to=to) for wide, name in inputs.items()] + nodes
        nodes += [helper.make_node("Cast", [name], [wide], to=TensorProto.FLOAT) for wide, name in outputs.items()]
    del graph.node[:]
    graph.node.extend(nodes)
    return narrow


class HalfPrecisionTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def write(self, to, interface):
        file = self.folder / f"{TensorProto.DataType.Name(to)}-{interface}.onnx"
        onnx.save(narrowed(onnx.load(FP32), to, interface), file)
        return file

    def test_it_runs_as_fast_as_files_that_store_weights_so(self):
        products = sum(bool(layer["macs"]) for layer in answer("inspect", FP32)["layers"])
        for to, precision in ((TensorProto.FLOAT16, "fp16"), (TensorProto.BFLOAT16, "bf16")):
            for interface in (False, True):
                with self.subTest(precision=precision, interface=interface):
                    file = self.write(to, interface)
                    certificate = answer("inspect", file)
                    self.assertEqual(certificate["precision"], precision)
                    macs = [layer for layer in certificate["layers"] if layer["macs"]]
                    self.assertEqual(len(macs), products)
                    for layer in macs:
                        self.assertNotIn("ref", layer["impl"], layer)
                        self.assertEqual(layer["runs"], "bf16" if HAS_BF16 else "f32", layer)

    def test_it_answers_like_the_fp32_model(self):
        for to in TensorProto.FLOAT16, TensorProto.BFLOAT16:
            for interface in (False, True):
                with self.subTest(to=to, interface=interface):
                    judged = answer("eval", self.write(to, interface), "--data", TEST, "--map", MAP, "--reference", FP32)
                    self.assertGreaterEqual(judged["sqnr_db"], 27)  # A cosine of 0.999.
                    self.assertGreaterEqual(judged["agreement"], 99)

    def test_a_reference_reads_samples_in_its_own_type(self):
        images = mapped(served_models.load_test_set()[0][:64])
        half, samples = self.write(TensorProto.FLOAT16, True), self.folder / "samples.npz"
        for model, reference, to in ((FP32, half, np.float32), (half, FP32, np.float16)):
            with self.subTest(to=to):
                np.savez(samples, inputs=images.astype(to))
                judged = answer("eval", model, "--data", samples, "--reference", reference)
                self.assertGreaterEqual(judged["sqnr_db"], 27)
                self.assertGreaterEqual(judged["agreement"], 98)

    def few(self, data, count):
        """The first images and labels: kernels of DOUBLE are slow, and so is training."""
        file = self.folder / f"few_{data.name}"
        with np.load(data) as arrays:
            np.savez(file, **{name: array[:count] for name, array in arrays.items()})
        return file

    def declared(self, file):
        graph = onnx.load(file).graph
        return [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)]

    def test_it_is_quantized_like_the_fp32_model(self):
        def figures(model, name):
            out = self.folder / name
            made = answer("quantize", model, "--calibration", CALIBRATION, "--map", MAP, "--out", out, "--method", "min-max")
            self.assertEqual([one["precision"] for one in made], ["fp16", "bf16", "int8", "int8-dynamic"])
            return {one["precision"]: answer("eval", one["file"], "--data", few, "--map", MAP, "--reference", model) for one in made}

        few = self.few(TEST, 200)
        expected = figures(FP32, "fp32")
        stored = self.folder / "fp32/fp16.onnx"
        models = [(stored, [TensorProto.FLOAT] * 2)]
        models += [(self.write(to, True), [to] * 2) for to in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)]
        models.append((self.write(TensorProto.FLOAT16, False), [TensorProto.FLOAT] * 2))
        for model, types in models:
            with self.subTest(model=model.name):
                got = figures(model, "of_" + model.stem)
                for precision, judged in got.items():
                    self.assertEqual(self.declared(self.folder / f"of_{model.stem}/{precision}.onnx"), types)
                    self.assertGreaterEqual(judged["agreement"], 98.5, precision)
                    least = min(expected[precision]["sqnr_db"] or 60, 60) - 2
                    if "BFLOAT16" not in model.name:  # Its own answers are rounded to 8 bits.
                        self.assertGreaterEqual(judged["sqnr_db"] or 60, min(least, 45), precision)
                certificate = answer("inspect", self.folder / f"of_{model.stem}/int8.onnx")
                for layer in certificate["layers"]:
                    if layer["macs"]:
                        self.assertEqual(layer["runs"], "int8", layer)

    def test_report_and_qat_take_it(self):
        few, calibration = self.few(TEST, 200), self.few(CALIBRATION, 64)
        for to in TensorProto.FLOAT16, TensorProto.DOUBLE:
            with self.subTest(to=to):
                model = self.write(to, True)
                made, trained = self.folder / "made", self.folder / "trained.onnx"
                words = ("--calibration", calibration, "--map", MAP, "--out", made, "--method", "min-max")
                answer("quantize", model, "--to", "int8", *words)
                plain = ("--per-tensor", "--no-equalize", "--no-compensate")
                answer("qat", model, "--data", calibration, "--map", MAP, "--epochs", 1, "--out", trained, *plain)
                self.assertEqual(self.declared(trained), [to] * 2)
                page, report = self.folder / "page.html", self.folder / "report.json"
                files = ("--variants", made / "int8.onnx", trained)
                quick = ("--rounds", 1, "--seconds", 0.05)
                done = octet("report", model, *files, "--data", few, "--map", MAP, "--out", page, "--json", report, *quick)
                self.assertEqual(done.returncode, 0, done.stderr)
                original, *variants = json.loads(report.read_text())["variants"]
                self.assertEqual(original["precision"], "fp32")
                self.assertGreater(original["accuracy"]["top1"], 90)
                for variant in variants:
                    self.assertGreaterEqual(variant["accuracy"]["agreement"], 98.5)
                    self.assertGreater(len(variant["layers"]["values"]), 5)

    def test_what_is_no_real_is_not_mapped(self):
        file = self.folder / "integers.onnx"
        nodes = [helper.make_node("Cast", ["image"], ["reals"], to=TensorProto.FLOAT), helper.make_node("Flatten", ["reals"], ["scores"])]
        inputs = [helper.make_tensor_value_info("image", TensorProto.INT64, ["N", 3, 32, 32])]
        outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3072])]
        graph = helper.make_graph(nodes, "integers", inputs, outputs)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8), file)
        done = octet("eval", file, "--data", TEST, "--map", MAP)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("only reals can be mapped, this one is INT64", done.stderr)

    def test_a_server_reads_and_answers_fp16(self):
        def write_half(folder):
            version = folder / "models/half/1"
            version.mkdir(parents=True)
            shutil.copy(self.write(TensorProto.FLOAT16, True), version / "fp16.onnx")
            (version.parent / "model.yaml").write_text(pathlib.Path(MAP).read_text().replace("name: glyphs", "name: half"))

        images, truth = (array[:8] for array in served_models.load_test_set())
        client = ServedClient(octet_process.executable(), fill=write_half)
        self.addCleanup(client.close)
        stub, messages = client.stub, client.messages
        metadata = stub.ModelMetadata(messages.ModelMetadataRequest(name="half"), timeout=20)
        self.assertEqual([t.datatype for t in (*metadata.inputs, *metadata.outputs)], ["FP16", "FP16"])
        answers = []
        for datatype, elements in (("FP16", mapped(images).astype(np.float16)), ("UINT8", images)):
            request = messages.ModelInferRequest(model_name="half")
            request.inputs.add(name="image", datatype=datatype, shape=images.shape)
            request.raw_input_contents.append(elements.tobytes())
            response = stub.ModelInfer(request, timeout=20)
            self.assertEqual(response.outputs[0].datatype, "FP16")
            answers.append(np.frombuffer(response.raw_output_contents[0], np.float16).reshape(len(images), -1))
        self.assertGreaterEqual((answers[0].argmax(axis=1) == truth).sum(), 7)
        np.testing.assert_array_equal(answers[1], answers[0], "pixels, mapped by the server")


if __name__ == "__main__":
    octet_process.main()
