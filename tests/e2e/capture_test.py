#!/usr/bin/env python3
"""Lets `octet serve` capture requests, quantizes a model with them, and replays them: the loop from traffic to a precision.

usage: capture_test.py OCTET
"""

import collections
import concurrent.futures
import json
import os
import pathlib
import re
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import unittest

import grpc
import numpy
import onnx
import served_glyphs
import served_models
from served_client import ServedClient

OCTET = ""
MAP = served_models.GLYPHS / "model.yaml"
IMAGES, TRUTH = served_models.load_test_set()
SERIES = re.compile(r'^octet_(capture\w*)\{model="glyphs",version="1"(?:,reason="(\w+)")?\} (\S+)$', re.MULTILINE)
FILE = "glyphs/1/uint8-3x32x32.npz"
messages = services = None


def setUpModule():
    global messages, services
    served_glyphs.set_up()
    messages, services = served_glyphs.messages, served_glyphs.services


def tearDownModule():
    served_glyphs.tear_down()


def octet(*words):
    return subprocess.run([OCTET, *map(str, words)], capture_output=True, text=True, timeout=200, check=False)


class Captured:
    """A server of the demo's fp32 model that captures to the folder `captures`, which is there unless `path` names another."""

    def __init__(self, capture, path=None, write_seconds=1, executable=None, versions=None):
        self._folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self._folder.name)
        self.captures = pathlib.Path(path or folder / "captures")
        if path is None:
            self.captures.mkdir()
        self.models = folder / "models"
        self.version = self.models / "glyphs/1"
        self.version.mkdir(parents=True)
        shutil.copy(served_models.GLYPHS / "1/fp32.onnx", self.version)
        for version, write in (versions or {}).items():
            (self.models / "glyphs" / version).mkdir()
            write(self.models / "glyphs" / version / "fp32.onnx")
        (self.models / "glyphs/model.yaml").write_text(MAP.read_text() + f"capture: {capture}\nversions: {{all: true}}\n")
        configuration = f"capture: {{path: '{self.captures}', write_seconds: {write_seconds}}}\n"
        self.server = served_models.server.Server(executable or OCTET, self.models, folder, configuration)
        self._channel = grpc.insecure_channel(self.server.grpc)
        self.stub = services.GRPCInferenceServiceStub(self._channel)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self._channel.close()
        with self.server:
            if self.server.process.poll() is None:
                self.server.stop()
        self._folder.cleanup()

    def ask(self, number):
        """Returns the logits of one image, as bytes."""
        request = messages.ModelInferRequest(model_name="glyphs")
        request.inputs.add(name="image", datatype="UINT8", shape=[1, *IMAGES.shape[1:]])
        request.raw_input_contents.append(IMAGES[number % len(IMAGES)].tobytes())
        return self.stub.ModelInfer(request, timeout=20).raw_output_contents[0]

    def metrics(self):
        """Returns {name without octet_, or name and reason: value}."""
        return {f"{name} {reason}".strip(): float(value) for name, reason, value in SERIES.findall(self.server.metrics_page())}

    def wait_until(self, condition):
        until = time.monotonic() + 30
        while not condition():
            if time.monotonic() > until:
                raise AssertionError(f"{self.metrics()}\n{self.server.last_words()}")
            time.sleep(0.05)

    def images(self):
        with numpy.load(self.captures / FILE) as arrays:
            return arrays["image"]

    def wait_for_rows(self, count):
        """Returns the captured images once the file holds that many."""
        self.wait_until(lambda: (self.captures / FILE).exists() and len(self.images()) == count)
        return self.images()

    def replay(self, file, *words):
        return octet("replay", file, "--server", self.server.grpc, "--model", "glyphs", *words)


def write_labels_model(path):
    """labels INT64 [N, K], x FLOAT [N, 2] -> y = x + labels, K being 1 or 2: they say nothing of the best class."""
    info = onnx.helper.make_tensor_value_info
    inputs = [info("labels", onnx.TensorProto.INT64, ["N", "K"]), info("x", onnx.TensorProto.FLOAT, ["N", 2])]
    nodes = [onnx.helper.make_node("Cast", ["labels"], ["c"], to=onnx.TensorProto.FLOAT), onnx.helper.make_node("Add", ["x", "c"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "net", inputs, [info("y", onnx.TensorProto.FLOAT, ["N", 2])])
    path.parent.mkdir(parents=True)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), path)


class LabelsTest(unittest.TestCase):
    def test_an_input_of_that_name_is_no_truth(self):
        client = ServedClient(OCTET, {"net": write_labels_model})
        self.addCleanup(client.close)
        samples = client.folder / "samples.npz"
        for extent in (1, 2):
            numpy.savez(samples, labels=numpy.zeros((6, extent), "i8"), x=numpy.ones((6, 2), "f4"))
            done = octet("eval", client.folder / "models/net/1/fp32.onnx", "--data", samples, "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIsNone(json.loads(done.stdout)["top1"])
            done = octet("replay", samples, "--server", client.server.grpc, "--model", "net", "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(json.loads(done.stdout)["rows"], 6)


def write_vector_model(path):
    """x FLOAT [1, 4] -> y = Relu(x) as [4], one sample at a time; what answers in fp32 is compared with bf16, the same file."""
    info = onnx.helper.make_tensor_value_info
    ends = [info("x", onnx.TensorProto.FLOAT, [1, 4]), info("y", onnx.TensorProto.FLOAT, [4])]
    nodes = [onnx.helper.make_node("Relu", ["x"], ["rows"]), onnx.helper.make_node("Reshape", ["rows", "shape"], ["y"])]
    shape = onnx.numpy_helper.from_array(numpy.int64([4]), "shape")
    graph = onnx.helper.make_graph(nodes, "net", ends[:1], ends[1:], [shape])
    path.parent.mkdir(parents=True)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), path)
    shutil.copy(path, path.with_name("bf16.onnx"))
    path.parents[1].joinpath("model.yaml").write_text("routing: {default: fp32, shadow: {precision: bf16, against: fp32, percent: 100}}\n")


class VectorTest(unittest.TestCase):
    def test_a_vector_is_the_scores_of_the_one_sample_that_was_asked(self):
        client = ServedClient(OCTET, {"net": write_vector_model})
        self.addCleanup(client.close)
        samples = client.folder / "samples.npz"
        numpy.savez(samples, x=numpy.arange(24, dtype="f4").reshape(6, 4))
        sides = ("--precision", "fp32", "--against", "bf16", "--min-agreement", 100)
        done = octet("replay", samples, "--server", client.server.grpc, "--model", "net", *sides, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["outputs"]["y"]["class_rows"], 6)
        series = re.compile(r"^octet_shadow_class_rows_total\{[^}]*\} (\S+)$", re.MULTILINE)
        end = time.monotonic() + 20
        while True:
            rows = [float(value) for value in series.findall(client.server.metrics_page())]
            if rows == [6]:
                break
            self.assertLess(time.monotonic(), end, rows)
            time.sleep(0.05)


def write_shuffled(path):
    """Writes the demo's model with the scores of its first half of the classes in another order."""
    model = onnx.load(served_models.GLYPHS / "1/fp32.onnx")
    (name,) = (output.name for output in model.graph.output)
    last = next(node for node in model.graph.node if name in node.output)
    last.output[0] = "in_order"
    count = len(served_models.LABELS)
    order = [*range(count // 2)[::-1], *range(count // 2, count)]
    model.graph.initializer.append(onnx.numpy_helper.from_array(numpy.int64(order), "order"))
    model.graph.node.append(onnx.helper.make_node("Gather", ["in_order", "order"], [name], axis=1))
    onnx.save(model, path)


def counted(images):
    return collections.Counter(image.tobytes() for image in images)


class CaptureTest(unittest.TestCase):
    def test_traffic_makes_an_int8_file_and_proves_it(self):
        with Captured("{percent: 100}") as served:
            for number in range(256):
                served.ask(number)
            images = served.wait_for_rows(256)
            self.assertEqual(counted(images), counted(IMAGES[:256]))
            self.assertEqual(images.dtype, numpy.uint8)
            file = served.captures / FILE
            self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
            for folder in (file.parent, file.parent.parent):
                self.assertEqual(stat.S_IMODE(folder.stat().st_mode), 0o700)
            self.assertEqual([path.name for path in file.parent.iterdir()], [file.name])

            done = octet("quantize", served.version / "fp32.onnx", "--calibration", file, "--map", MAP, "--to", "int8", "--out", served.version)
            self.assertEqual(done.returncode, 0, done.stderr)
            served.stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name="glyphs"), timeout=60)

            gates = ["--min-agreement", 95, "--min-sqnr-db", 15]
            sides = ["--precision", "int8", "--against", "fp32"]
            done = served.replay(file, *sides, *gates, "--concurrency", 4, "--rows", 3, "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            report = json.loads(done.stdout)
            print(done.stdout)
            self.assertEqual(report["rows"], 256)
            self.assertEqual([side["answered_by"] for side in report["sides"]], [{"1/int8": 86}, {"1/fp32": 86}])
            self.assertEqual([side["errors"] for side in report["sides"]], [0, 0])
            (output,) = report["outputs"].values()
            self.assertEqual(output["class_rows"], 256)
            self.assertGreaterEqual(output["top1_percent"], 95)
            self.assertLess(output["top1_percent"] + output["sqnr_db"], 200)
            self.assertGreater(output["max_abs"], 0)
            self.assertEqual(report["failures"], [])
            self.assertIn("256 rows", served.replay(file, *sides).stdout)
            done = served.replay(file, "--version", 1, "--against-version", 1, "--precision", "fp32", "--min-agreement", 100)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(" of them with 5: Request for unknown model: 'glyphs' has no version 2", served.replay(file, "--version", 1, "--against-version", 2).stderr)

            self.assertEqual(served.metrics()["capture_drawn_requests_total"], 256, "a replay is not captured")

            done = served.replay(file, *sides, "--min-sqnr-db", 90)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, r"^octet: output '\w+': SQNR [0-9.]+ dB is below --min-sqnr-db 90\n$")

    def test_captured_bytes_train(self):
        with Captured("{percent: 100}") as served:
            for number in range(256):
                served.ask(number)
            self.assertEqual(served.wait_for_rows(256).dtype, numpy.uint8)
            file, out = served.captures / FILE, served.models.parent / "int8.onnx"
            words = ["--data", file, "--map", MAP, "--epochs", 1, "--out", out, "--json"]
            done = octet("qat", served.version / "fp32.onnx", *words)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual([row["epoch"] for row in json.loads(done.stdout)["epochs"]], [0, 1])
            shutil.copy(out, served.version)
            served.stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name="glyphs"), timeout=60)
            done = served.replay(file, "--precision", "int8", "--against", "fp32", "--min-agreement", 95, "--min-sqnr-db", 15)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_versions_that_differ_are_told_apart(self):
        with Captured("{percent: 0}", versions={"2": write_shuffled}) as served:
            file = served.models.parent / "images.npz"
            numpy.savez(file, image=IMAGES[:128])
            sides = ["--version", 1, "--against-version", 2]
            done = served.replay(file, *sides, "--min-agreement", 90, "--min-sqnr-db", 15, "--json")
            self.assertEqual(done.returncode, 1)
            report = json.loads(done.stdout)
            self.assertEqual([side["answered_by"] for side in report["sides"]], [{"1/fp32": 128}, {"2/fp32": 128}])
            (output,) = report["outputs"].values()
            half = len(served_models.LABELS) // 2
            in_place = 100 * float((TRUTH[:128] >= half).mean())
            self.assertAlmostEqual(output["top1_percent"], in_place, delta=10)
            self.assertGreater(output["max_abs"], 1)
            self.assertLess(output["sqnr_db"], 5)
            self.assertEqual(len(report["failures"]), 2, report["failures"])
            self.assertRegex(done.stderr, r"top-1 agreement [0-9.]+ % is below --min-agreement 90")
            self.assertRegex(done.stderr, r"SQNR -?[0-9.]+ dB is below --min-sqnr-db 15")
            done = served.replay(file, *sides)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(f"{output['top1_percent']:.6g}", done.stdout)
            done = served.replay(file, "--version", 2, "--against-version", 2, "--min-agreement", 100)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_answers_are_saved_and_expected(self):
        with Captured("{percent: 100}") as served:
            for number in range(20):
                served.ask(number)
            served.wait_for_rows(20)
            file, saved = served.captures / FILE, served.models.parent / "saved.npz"
            done = served.replay(file, "--save", saved)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(stat.S_IMODE(saved.stat().st_mode), 0o600)
            done = served.replay(file, "--save", file)
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"cannot write '{file}': it would replace '{file}'", done.stderr)
            done = served.replay(file, "--expect", saved, "--rows", 7, "--min-agreement", 100, "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            (output,) = json.loads(done.stdout)["outputs"].values()
            self.assertEqual(output["class_rows"], 20)
            self.assertLess(output["max_abs"], 1e-4)
            with numpy.load(saved) as arrays:
                answers = {name: array[::-1] for name, array in arrays.items()}
            numpy.savez(saved, **answers)
            kept = saved.with_name("kept.npz")
            done = served.replay(file, "--expect", saved, "--min-agreement", 99, "--save", kept)
            self.assertEqual(done.returncode, 1)
            with numpy.load(kept) as arrays:  # They are answers, whatever they miss.
                self.assertEqual({name: len(array) for name, array in arrays.items()}, dict.fromkeys(answers, 20))
            self.assertRegex(done.stderr, r"^octet: output '\w+': top-1 agreement [0-9.]+ % is below --min-agreement 99\n$")
            numpy.savez(saved, **{name: array[:-1] for name, array in answers.items()})
            done = served.replay(file, "--expect", saved)
            self.assertEqual(done.returncode, 1)
            self.assertIn("expected 20 rows, one per sample, got shape", done.stderr)

    def test_capture_under_load_loses_no_request_and_stays_in_its_bounds(self):
        bound = 1 << 20
        with Captured(f"{{percent: 100, max_bytes: {bound}}}") as served:
            expected = [served.ask(number) for number in range(32)]
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                answers = list(pool.map(served.ask, range(4000)))
            self.assertEqual(len(answers), 4000)
            # A batch rounds other than one row alone.
            for answer, alone in zip(answers, expected):
                numpy.testing.assert_allclose(numpy.frombuffer(answer, "f4"), numpy.frombuffer(alone, "f4"), atol=1e-4)
            served.wait_until(lambda: served.metrics()["capture_writes_total"] >= 1)
            served.wait_until(lambda: served.metrics()["capture_drawn_requests_total"] == 4032)
            served.wait_until(lambda: (before := served.metrics()) and not time.sleep(0.2) and before == served.metrics())
            values = served.metrics()
            print(values)
            self.assertLessEqual(values["capture_sample_bytes"], bound)
            self.assertGreater(values["capture_sample_bytes"], 0.9 * bound)
            self.assertEqual(values["capture_write_failures_total"], 0)
            self.assertEqual({name for name in values if name.startswith("capture_dropped") and values[name] > 0} - {"capture_dropped_requests_total busy"}, set())
            served.server.stop()
            images = served.images()
            self.assertEqual(len(images), values["capture_sample_rows"])
            self.assertEqual(counted(images) - counted(numpy.concatenate([IMAGES] * 5)), {}, "what nobody sent")

    def test_a_share_is_captured(self):
        with Captured("{percent: 25}") as served:
            for number in range(400):
                served.ask(number)
            # Binomial: 25 % of 400 is 100, and five standard deviations are 43.
            self.assertTrue(57 < served.metrics()["capture_drawn_requests_total"] < 143, served.metrics())

    def test_a_failed_request_is_not_captured(self):
        with Captured("{percent: 100}") as served:
            request = messages.ModelInferRequest(model_name="glyphs")
            request.inputs.add(name="image", datatype="UINT8", shape=[1, 3, 32, 31])
            request.raw_input_contents.append(bytes(3 * 32 * 31))
            with self.assertRaises(grpc.RpcError):
                served.stub.ModelInfer(request, timeout=20)
            served.ask(0)
            self.assertEqual(len(served.wait_for_rows(1)), 1)
            self.assertEqual(served.metrics()["capture_drawn_requests_total"], 1)

    def test_the_end_and_an_unload_write(self):
        with Captured("{percent: 100}", write_seconds=86400) as served:
            served.ask(0)
            # A request is captured behind its answer.
            served.wait_until(lambda: served.metrics()["captured_requests_total"] == 1)
            served.stub.RepositoryModelUnload(messages.RepositoryModelUnloadRequest(model_name="glyphs"), timeout=60)
            self.assertEqual(len(served.images()), 1)
            served.stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name="glyphs"), timeout=60)
            for number in range(3):
                served.ask(number)
            served.server.stop()
            self.assertEqual(len(served.images()), 3)

    def test_redacted_inputs_are_zeros(self):
        with Captured("{percent: 100, redact: [image]}") as served:
            served.ask(0)
            images = served.wait_for_rows(1)
            self.assertEqual(images.shape, (1, *IMAGES.shape[1:]))
            self.assertFalse(images.any())
            self.assertTrue(IMAGES[0].any())

    def test_a_folder_that_cannot_be_written_is_counted_and_requests_are_answered(self):
        with tempfile.TemporaryDirectory() as folder:
            # Permissions do not hold root back; /proc does.
            path = "/proc" if os.geteuid() == 0 else folder
            os.chmod(folder, 0o500)
            with Captured("{percent: 100}", path=path) as served:
                answer = served.ask(0)
                served.wait_until(lambda: served.metrics()["capture_write_failures_total"] >= 2)
                self.assertEqual(served.ask(0), answer)
                said = served.server.log.read_text()
                self.assertEqual(said.count("event=capture_write_failed model=glyphs version=1"), 1, said)
                self.assertIn("cannot make a folder", said)

    def test_a_folder_that_comes_back_is_written(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "mount"
            with Captured("{percent: 100}", path=path) as served:
                served.ask(0)
                served.wait_until(lambda: served.metrics()["capture_write_failures_total"] >= 1)
                path.mkdir()
                served.wait_for_rows(1)
                # It is said behind the file's last byte.
                served.wait_until(lambda: "event=capture_write_recovered" in served.server.log.read_text())

    def test_a_disk_that_is_full_leaves_the_file_before_and_is_tried_again(self):
        with tempfile.TemporaryDirectory() as folder:
            # A file may have 62 KiB, which is 20 images and not one more; the signal that a write beyond ends a process with is ignored.
            limited = pathlib.Path(folder) / "octet"
            limited.write_text(f"#!/bin/bash\ntrap '' XFSZ\nulimit -S -f 62\nexec {OCTET} \"$@\"\n")
            limited.chmod(0o700)
            with Captured("{percent: 100}", executable=limited) as served:
                for number in range(20):
                    served.ask(number)
                served.wait_for_rows(20)
                answers = [served.ask(number) for number in range(100)]
                served.wait_until(lambda: served.metrics()["capture_write_failures_total"] >= 2)
                self.assertEqual(counted(served.images()), counted(IMAGES[:20]))
                # Beside it at most one that is being written.
                served.wait_until(lambda: os.listdir(served.captures / "glyphs/1") == ["uint8-3x32x32.npz"])
                self.assertIn("File too large", served.server.log.read_text())
                self.assertEqual([served.ask(number) for number in range(100)], answers)
                resource.prlimit(served.server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                served.wait_for_rows(220)

    def test_files_of_a_folder_are_replayed_as_they_are_stored(self):
        with Captured("{percent: 0}") as served:
            whole, folder, answers = (served.models.parent / name for name in ("whole.npz", "parts", "answers.npz"))
            numpy.savez(whole, image=IMAGES[:30])
            folder.mkdir()
            numpy.savez_compressed(folder / "a.npz", image=IMAGES[:7])
            numpy.save(folder / "b.npy", IMAGES[7:30])
            done = served.replay(whole, "--save", answers)
            self.assertEqual(done.returncode, 0, done.stderr)
            done = served.replay(folder, "--rows", 4, "--expect", answers, "--min-agreement", 100, "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(json.loads(done.stdout)["rows"], 30)

    def test_without_a_path_the_key_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            model = pathlib.Path(folder) / "glyphs"
            shutil.copytree(served_models.GLYPHS, model)
            (model / "model.yaml").write_text("capture: {percent: 100}\n")
            done = octet("serve", "--check-config", "--repository", folder)
            self.assertEqual(done.returncode, 1)
            self.assertIn("model.yaml: capture: the server's configuration has no capture.path", done.stderr)


class ReplayErrorsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.served = cls.enterClassContext(Captured("{percent: 0}"))
        cls.file = served_models.ROOT / "demo/data/calibration.npz"

    def assert_fails(self, done, words):
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn(words, done.stderr)

    def test_failed_requests_fail_the_replay(self):
        done = self.served.replay(self.file, "--precision", "bf16", "--against", "fp32", "--json")
        self.assert_fails(done, "requests failed, ")
        report = json.loads(done.stdout)
        self.assertEqual(report["rows"], 0)
        self.assertEqual(report["outputs"], {})
        self.assertGreater(report["sides"][0]["errors"], 0)
        self.assertEqual(report["sides"][1]["errors"], 0)

    def test_what_was_not_answered_is_not_saved(self):
        saved = self.served.models.parent / "unsaved.npz"
        done = self.served.replay(self.file, "--precision", "bf16", "--save", saved)
        self.assert_fails(done, f"--save: '{saved}' is not written: expected ")
        self.assertFalse(saved.exists())

    def test_a_gate_that_sees_nothing_is_no_pass(self):
        done = self.served.replay(self.file, "--precision", "bf16", "--against", "fp32", "--min-agreement", 1, "--min-sqnr-db", 1)
        self.assert_fails(done, "--min-agreement: no output with classes was compared")
        self.assertIn("--min-sqnr-db: no output of floating point was compared", done.stderr)

    def test_a_gate_needs_something_to_compare_with(self):
        self.assert_fails(self.served.replay(self.file, "--min-agreement", 99), "need something to compare with")

    def test_another_server_is_asked(self):
        with Captured("{percent: 0}") as other:
            done = self.served.replay(self.file, "--against-server", other.server.grpc, "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            report = json.loads(done.stdout)
            self.assertEqual([side["server"] for side in report["sides"]], [self.served.server.grpc, other.server.grpc])
            (output,) = report["outputs"].values()
            self.assertEqual((output["top1_percent"], output["max_abs"], output["sqnr_db"]), (100, 0, None))
        self.assert_fails(self.served.replay(self.file, "--against-server", other.server.grpc, "--timeout-seconds", 5), "14: ")

    def test_a_server_a_model_and_a_file_that_are_not_there(self):
        self.assert_fails(octet("replay", self.file, "--server", "127.0.0.1:1", "--model", "glyphs"), "octet: ")
        self.assert_fails(octet("replay", self.file, "--server", self.served.server.grpc, "--model", "nobody"), "unknown model")
        self.assert_fails(self.served.replay("nowhere.npz"), "no such file: nowhere.npz")

    def test_wrong_usage(self):
        self.assertEqual(self.served.replay(self.file, "--expect", "x.npz", "--against", "fp32").returncode, 2)
        self.assertEqual(self.served.replay(self.file, "--min-agreement", 101).returncode, 2)


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
