#!/usr/bin/env python3
"""`octet report`: its numbers are those of `octet eval`, `octet inspect`, ONNX Runtime and the files; its errors.

usage: report_test.py OCTET
"""

import json
import pathlib
import shutil
import tempfile
import time
import unittest

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import numpy as np
import onnx
import onnxruntime
from onnx import helper

import octet_process
from demo_model import CALIBRATION, FP32, MAP, TEST, mapped
from octet_process import answer, octet

ROUNDS = 2
QUICK = ["--rounds", ROUNDS, "--seconds", 0.02]
NAMES = ["fp32", "fp16", "bf16", "int8", "int8-dynamic", "int8-trained"]
CLAIMS = {  # the size claimed and the speed, by technique
    "dynamic range": (4, 2),
    "full integer": (4, 3),
    "quantization-aware training": (4, 3),
    "float16": (2, 1),
    "bfloat16": (2, None),
}
SAMPLES_COMPARED = 64


def without_times(report):
    """Leaves what two runs must agree on."""
    report = json.loads(json.dumps(report))
    del report["made_at"]
    for variant in report["variants"]:
        for key in ("latency", "memory", "pareto", "claims"):
            del variant[key]
    return report


class ReportTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.models = cls.folder / "glyphs/1"
        cls.models.mkdir(parents=True)
        shutil.copy(FP32, cls.models / "fp32.onnx")
        made = octet("quantize", FP32, "--calibration", CALIBRATION, "--map", MAP, "--out", cls.models, "--no-equalize", "--json")
        assert made.returncode == 0, made.stderr
        cls.record = cls.folder / "record.json"
        cls.record.write_text(made.stdout)
        # A file that says that it was trained: the same numbers, another technique.
        trained = onnx.load(cls.models / "int8.onnx")
        for entry in trained.metadata_props:
            if entry.key == "octet.recipe":
                entry.value += " trained=kl epochs=1"
        onnx.save(trained, cls.models / "int8-trained.onnx")
        begin = time.monotonic()
        cls.report = cls.make("report", "--quantize-record", cls.record, *QUICK)
        cls.seconds = time.monotonic() - begin
        cls.variants = {variant["name"]: variant for variant in cls.report["variants"]}

    @classmethod
    def make(cls, name, *words):
        page, text = cls.folder / f"{name}.html", cls.folder / f"{name}.json"
        done = octet("report", cls.models, "--data", TEST, "--map", MAP, "--out", page, "--json", text, *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(f"report: {page}\n"), done.stdout
        return json.loads(text.read_text())

    def test_every_file_of_the_folder_is_a_row(self):
        self.assertEqual([variant["name"] for variant in self.report["variants"]], NAMES)
        self.assertEqual((self.report["samples"], self.report["labels"]), (1536, True))
        for name, variant in self.variants.items():
            with self.subTest(name):
                size = (self.models / f"{name}.onnx").stat().st_size
                self.assertEqual(variant["bytes"], size)
                self.assertAlmostEqual(variant["ratio"], size / FP32.stat().st_size)

    def test_bytes_beside_a_file_count(self):
        beside = self.folder / "beside/1"
        beside.mkdir(parents=True)
        data = {"save_as_external_data": True, "location": "weights", "size_threshold": 0}
        onnx.save(onnx.load(FP32), beside / "fp32.onnx", **data)
        onnx.save(onnx.load(self.models / "int8.onnx"), beside / "int8.onnx", **(data | {"location": "int8-weights"}))
        self.assertLess((beside / "fp32.onnx").stat().st_size, FP32.stat().st_size / 2)
        page, text = self.folder / "beside.html", self.folder / "beside.json"
        done = octet("report", beside, "--data", TEST, "--map", MAP, "--out", page, "--json", text, *QUICK)
        self.assertEqual(done.returncode, 0, done.stderr)
        for variant in json.loads(text.read_text())["variants"]:
            self.assertAlmostEqual(variant["ratio"], self.variants[variant["name"]]["ratio"], delta=0.03)
        (made,) = answer("quantize", beside / "fp32.onnx", "--to", "bf16", "--out", self.folder / "beside-bf16")
        self.assertAlmostEqual(made["ratio"], self.variants["bf16"]["ratio"], delta=0.03)

    def test_accuracy_is_that_of_eval(self):
        for name in ("fp32", "int8", "int8-dynamic"):
            with self.subTest(name):
                reference = [] if name == "fp32" else ["--reference", FP32]
                expected = answer("eval", self.models / f"{name}.onnx", "--data", TEST, "--map", MAP, *reference)
                del expected["items_per_second"]
                got = dict(self.variants[name]["accuracy"])
                error = got.pop("max_abs_error")
                self.assertEqual(got, expected)
                self.assertEqual(error is None, name == "fp32")

    def test_latency_is_what_can_be(self):
        """The machine is shared, so this is no test of speed, but one of units and of what was run."""
        whole_ms = 0
        for name, variant in self.variants.items():
            latency = variant["latency"]
            self.assertGreaterEqual(latency["p99_ms"], latency["p50_ms"])
            self.assertGreaterEqual(latency["runs"], ROUNDS)
            self.assertEqual(latency["batch"], 1)
            # No processor does so many multiply-adds in a second.
            self.assertGreater(latency["p50_ms"], 1e3 * variant["macs"] / 1e13, name)
            # Half of the runs took at least that.
            whole_ms += latency["p50_ms"] * latency["runs"] / 2
        self.assertLess(whole_ms, 1e3 * self.seconds)
        for name in ("fp32", "int8"):
            (expected,) = answer("bench", self.models / f"{name}.onnx", "--seconds", 0.02)
            self.assertEqual(self.variants[name]["memory"]["weights_bytes"], expected["weights_bytes"])
        self.assertEqual(self.variants["fp32"]["latency"]["speedup"], 1)

    def test_memory_is_that_of_a_process_of_its_own(self):
        for name, variant in self.variants.items():
            peak = variant["memory"]["peak_resident_bytes"]
            self.assertGreater(peak, variant["memory"]["weights_bytes"], name)
            self.assertLess(peak, 1 << 28, name)

    def test_certificate_is_that_of_inspect(self):
        for name in ("fp16", "int8"):
            expected = answer("inspect", self.models / f"{name}.onnx")
            self.assertEqual(self.variants[name]["certificate"], expected["layers"])
            self.assertEqual(self.variants[name]["mac_share"], expected["mac_share"])

    def test_verdicts_follow_from_the_numbers(self):
        self.assertEqual(self.variants["fp32"]["claims"], [])
        for name in NAMES[1:]:
            variant = self.variants[name]
            measured = (1 / variant["ratio"], variant["latency"]["speedup"])
            for claim, needs, value in zip(variant["claims"], CLAIMS[variant["technique"]], measured, strict=False):
                with self.subTest(name=name, claim=claim["claim"]):
                    self.assertEqual(claim["needs"], needs)
                    self.assertAlmostEqual(claim["measured"], value)
                    if claim["verdict"] != "impossible on this CPU":
                        self.assertEqual(claim["verdict"], "met" if value >= 0.95 * needs else "not met")
        self.assertEqual([claim["verdict"] for claim in self.variants["bf16"]["claims"]], ["met"])

    def test_float16_is_impossible_where_nothing_computes_in_it(self):
        speed = self.variants["fp16"]["claims"][1]
        self.assertNotIn("f16", self.variants["fp16"]["mac_share"])
        here = self.report["machine"]["float16_arithmetic"]
        self.assertEqual(speed["verdict"], "not met" if here else "impossible on this CPU")
        for share in self.variants["fp16"]["mac_share"]:
            self.assertIn(f"% {share}", speed["reason"])

    def test_training_is_held_against_calibration(self):
        loss = self.variants["int8-trained"]["claims"][2]
        self.assertEqual((loss["measured"], loss["unit"], loss["verdict"]), (0, "points", "not met"))

    def test_no_file_beats_the_pareto_front(self):
        points = [(v["latency"]["p50_ms"], v["accuracy"]["top1"], v["pareto"]) for v in self.report["variants"]]
        for time, quality, front in points:
            beaten = any(t <= time and q >= quality and (t, q) != (time, quality) for t, q, _ in points)
            self.assertEqual(front, not beaten, points)

    def test_inner_values_are_those_of_onnx_runtime(self):
        """Runs both files there, with the compared values as outputs."""
        data = mapped(np.load(TEST)["inputs"][:SAMPLES_COMPARED])
        rows = self.variants["int8"]["layers"]["values"]
        self.assertEqual(self.variants["int8"]["layers"]["unmatched"], [])
        self.assertGreater(len(rows), 10)
        inner = [row["name"] for row in rows if row["op"]]
        exact = self.run_there("fp32", data, {name: name for name in inner})
        graph = onnx.load(self.models / "int8.onnx").graph
        made = {node.output[0]: node.input[0] for node in graph.node}
        pairs = {made[node.input[0]]: node.output[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in made}
        dequantized = {row["name"]: pairs[row["name"]] if "quantized" in row else row["name"] for row in rows if row["op"]}
        got = self.run_there("int8", data, dequantized)
        for row in rows:
            if not row["op"]:
                continue
            with self.subTest(row["name"]):
                x, y = exact[row["name"]].astype(np.float64), got[row["name"]].astype(np.float64)
                if "max_abs_error" not in row:  # Bias correction: a channel that is a little off is fitted.
                    axes = tuple(i for i in range(x.ndim) if i != 1)
                    y = y * ((x * y).sum(axes, keepdims=True) / np.maximum((y * y).sum(axes, keepdims=True), 1e-30))
                expected = 10 * np.log10((x * x).sum() / ((x - y) ** 2).sum())
                self.assertAlmostEqual(row["sqnr_db"], expected, delta=1)

    def run_there(self, name, data, outputs):
        model = onnx.load(self.models / f"{name}.onnx")
        present = {output.name for output in model.graph.output}
        extra = [helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None) for value in outputs.values() if value not in present]
        model.graph.output.extend(extra)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        answers = session.run(list(outputs.values()), {session.get_inputs()[0].name: data})
        return dict(zip(outputs, answers, strict=True))

    def test_ranges_are_those_of_the_file(self):
        model = onnx.load(self.models / "int8.onnx")
        constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        quantizers = {node.input[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
        rows = [row for row in self.variants["int8"]["layers"]["values"] if "quantized" in row]
        self.assertEqual({row["name"] for row in rows}, set(quantizers))
        for row in rows:
            _, scale, zero = quantizers[row["name"]].input
            q = row["quantized"]
            self.assertAlmostEqual(q["scale"], float(constants[scale]), places=6)
            self.assertEqual(q["zero_point"], int(constants[zero]))
            self.assertAlmostEqual(q["min"], q["scale"] * (0 - q["zero_point"]), places=4)
            self.assertAlmostEqual(q["max"], q["scale"] * (255 - q["zero_point"]), places=4)
            self.assertLess(q["cut_off"], 0.01)
        weights = {row["name"]: row for row in self.variants["int8"]["layers"]["weights"]}
        integers = {name: array for name, array in constants.items() if array.dtype == np.int8 and array.ndim > 1}
        self.assertEqual(set(weights), set(integers))
        for name, array in integers.items():
            self.assertEqual(sum(weights[name]["histogram"]["counts"]), array.size)

    def test_the_quantizers_record_is_passed_on(self):
        self.assertEqual(self.report["quantize_record"], json.loads(self.record.read_text()))

    def test_two_runs_differ_in_their_times_alone(self):
        again = self.make("again", "--quantize-record", self.record, *QUICK)
        self.assertEqual(without_times(again), without_times(self.report))
        self.assertEqual(sorted(path.name for path in self.folder.iterdir() if "tmp" in path.name), [])

    def test_variants_beside_a_file(self):
        page, text = self.folder / "two.html", self.folder / "two.json"
        unlabelled = self.folder / "unlabelled.npz"
        np.savez(unlabelled, inputs=np.load(CALIBRATION)["inputs"])
        words = ["--variants", self.models / "int8.onnx", "--data", unlabelled, "--map", MAP, "--out", page, "--json", text, *QUICK]
        done = octet("report", FP32, *words)
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(text.read_text())
        self.assertEqual([variant["name"] for variant in report["variants"]], ["fp32", "int8"])
        self.assertFalse(report["labels"])
        self.assertIsNone(report["variants"][1]["accuracy"]["top1"])
        self.assertIsNone(report["quantize_record"])
        self.assertIsNone(report["training_record"])

    def refused(self, *words):
        page = self.folder / "refused.html"
        out = [] if "--out" in words else ["--out", page]
        done = octet("report", *words, *out)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertFalse(page.exists())
        return done.stderr

    def test_errors_name_what_is_wrong(self):
        data = ["--data", TEST, "--map", MAP]
        empty = self.folder / "empty"
        empty.mkdir()
        self.assertIn(f"the folder has no fp32.onnx to compare with: '{empty}'", self.refused(empty, *data))
        self.assertIn("no variant to compare", self.refused(FP32, *data))
        self.assertIn("no such model file", self.refused(FP32, *data, "--variants", empty / "int8.onnx"))
        int8 = self.models / "int8.onnx"
        self.assertIn("expected an fp32 model to compare with, got int8", self.refused(int8, "--variants", FP32, *data))
        self.assertIn("cannot create", self.refused(self.models, *data, "--out", self.folder / "none/report.html"))
        self.assertIn("it is a folder", self.refused(self.models, *data, "--out", empty))
        self.assertIn("cannot create", self.refused(self.models, *data, "--json", self.folder / "none/report.json"))
        page = self.folder / "page.html"
        self.assertIn("it would replace", self.refused(self.models, *data, "--out", page, "--json", page))
        self.assertFalse(page.exists())
        copy = self.folder / "test.npz"
        copy.write_bytes(TEST.read_bytes())
        self.assertIn("it would replace", self.refused(self.models, "--data", copy, "--map", MAP, "--json", copy))
        self.assertIn("it would replace", self.refused(self.models, *data, "--out", int8))
        self.assertEqual(copy.read_bytes(), TEST.read_bytes())
        self.assertIn("octet quantize --json", self.refused(self.models, *data, "--quantize-record", MAP))
        self.assertIn("octet qat --json", self.refused(self.models, *data, "--training-record", MAP))
        self.assertIn("octet qat --json", self.refused(self.models, *data, "--training-record", self.record))

    def test_data_of_another_model(self):
        other = self.folder / "other.npz"
        np.savez(other, inputs=np.zeros((4, 1, 9, 9), np.float32))
        error = self.refused(self.models, "--data", other)
        self.assertIn("other.npz: array 'inputs': expected shape", error)

    def test_another_file_in_fp32_is_compared_as_any(self):
        data = self.folder / "normal.npz"
        np.savez(data, inputs=np.random.default_rng(2).standard_normal((40, 4), np.float32))
        files = [self.elementwise(f"{operator}.onnx", "N", operator) for operator in ("Sigmoid", "Neg")]
        page, text = self.folder / "fp32.html", self.folder / "fp32.json"
        done = octet("report", files[0], "--variants", files[1], "--data", data, "--out", page, "--json", text, *QUICK)
        self.assertEqual(done.returncode, 0, done.stderr)
        fp32, other = (variant["accuracy"] for variant in json.loads(text.read_text())["variants"])
        self.assertEqual((fp32["agreement"], fp32["max_abs_error"]), (None, None))
        expected = answer("eval", files[1], "--data", data, "--reference", files[0])
        self.assertEqual(other["agreement"], expected["agreement"])
        self.assertLess(other["agreement"], 50)
        self.assertGreater(other["max_abs_error"], 0.5)

    def elementwise(self, name, samples, operator="Relu"):
        """Writes y = operator(x), x float [samples, 4]."""
        ends = [helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, [samples, 4]) for end in ("x", "y")]
        graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "net", ends[:1], ends[1:])
        file = self.folder / name
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file)
        return file

    def test_a_variant_of_another_model(self):
        other = self.elementwise("other.onnx", "N")
        error = self.refused(self.models, "--variants", other, "--data", TEST, "--map", MAP)
        self.assertIn(f"{other}: another input than the fp32 model's: expected", error)

    def test_a_batch_of_its_own_needs_as_many_samples(self):
        data = self.folder / "three.npz"
        np.savez(data, inputs=np.zeros((3, 4), np.float32))
        files = [self.elementwise(name, 4) for name in ("four.onnx", "four-again.onnx")]
        error = self.refused(files[0], "--variants", files[1], "--data", data)
        self.assertIn("too few samples: the model's own batch is 4, got 3", error)


if __name__ == "__main__":
    octet_process.main()
