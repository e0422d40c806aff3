#!/usr/bin/env python3
"""Lets `octet serve` copy requests to another precision, and holds what it counts against what it was asked.

usage: shadow_test.py OCTET
"""

import importlib
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

import grpc
import numpy
import onnx
import onnx.numpy_helper
import served_models
from served_client import generate_stubs

OCTET = ""
REQUESTS = 256
IMAGES, TRUTH = served_models.load_test_set()
SHADOW = "routing: {default: fp32, shadow: {precision: int8, against: fp32, percent: 100, max_queue_requests: 10000}}\n"
SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
messages = services = None
stubs = tempfile.TemporaryDirectory()


def setUpModule():
    global messages, services
    generate_stubs(pathlib.Path(stubs.name))
    messages = importlib.import_module("proto.inference_pb2")
    services = importlib.import_module("proto.inference_pb2_grpc")


def tearDownModule():
    stubs.cleanup()


def spoil(path):
    """Doubles the scales of a quantized model's weights in every other channel: it loads and runs, and its answers are wrong."""
    model = onnx.load(path)
    spoilt = 0
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 1 and "scale" in tensor.name and tensor.dims[0] > 1:
            scales = onnx.numpy_helper.to_array(tensor).copy()
            scales[::2] *= 2
            tensor.CopyFrom(onnx.numpy_helper.from_array(scales, tensor.name))
            spoilt += 1
    assert spoilt > 0, [(t.name, t.dims) for t in model.graph.initializer]
    onnx.save(model, path)


class Served:
    """A server of the demo's model in fp32 and int8."""

    def __init__(self, routing, change=lambda version: None):
        self._folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self._folder.name)
        models = served_models.make_repository(OCTET, folder)
        for name in ("nan", "garbage", "hollow"):
            shutil.rmtree(models / name)
        (models / "glyphs/model.yaml").write_text((served_models.GLYPHS / "model.yaml").read_text() + routing)
        change(models / "glyphs/1")
        self.models = models
        self.server = served_models.server.Server(OCTET, models, folder)
        self._channel = grpc.insecure_channel(self.server.grpc)
        self.stub = services.GRPCInferenceServiceStub(self._channel)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self._channel.close()
        with self.server:
            self.server.stop()
        self._folder.cleanup()

    def request(self, number):
        request = messages.ModelInferRequest(model_name="glyphs")
        request.inputs.add(name="image", datatype="UINT8", shape=[1, *IMAGES.shape[1:]])
        request.raw_input_contents.append(IMAGES[number % len(IMAGES)].tobytes())
        return request

    def ask(self, number):
        """Returns the logits of one image, as bytes, and the precision that answered."""
        response = self.stub.ModelInfer(self.request(number), timeout=20)
        return response.raw_output_contents[0], response.parameters["precision"].string_param

    def ask_all(self):
        return [self.ask(number) for number in range(REQUESTS)]

    def metrics(self):
        """Returns {(name, labels as written): value}."""
        with urllib.request.urlopen(f"http://{self.server.metrics}/metrics", timeout=10) as page:
            return {(name, labels): float(value) for name, labels, value in SERIES.findall(page.read().decode())}

    def shadow(self):
        """Returns {name without octet_shadow_: value} of the pair; a label that is more than the pair's is appended."""
        values = {}
        for (name, labels), value in self.metrics().items():
            if name.startswith("octet_shadow_") and 'against="fp32"' in labels:
                more = re.search(r'(?:reason|le)="([^"]*)"', labels)
                values[name.removeprefix("octet_shadow_") + (f" {more[1]}" if more else "")] = value
        return values

    def wait_for_copies(self, count):
        """Returns the pair's metrics once that many copies have run, failed or been dropped."""
        until = time.monotonic() + 30
        while True:
            values = self.shadow()
            dropped = sum(value for name, value in values.items() if name.startswith("dropped_requests_total"))
            ended = values["compared_requests_total"] + values["failed_requests_total"] + dropped
            if ended >= count:
                return values
            if time.monotonic() > until:
                raise AssertionError(f"{ended} of {count} copies ended: {values}")
            time.sleep(0.05)

    def variant(self, name, precision):
        return self.metrics()[name, f'model="glyphs",version="1",precision="{precision}"']


class ShadowTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with Served("routing: {default: fp32}\n") as alone:
            cls.expected = alone.ask_all()

    def assert_answers_are_those_without_a_shadow(self, answers):
        self.assertEqual({precision for _, precision in answers}, {"fp32"})
        self.assertEqual(answers, self.expected)

    def test_every_answer_is_compared_and_none_is_another(self):
        with Served(SHADOW) as served:
            self.assert_answers_are_those_without_a_shadow(served.ask_all())
            values = served.wait_for_copies(REQUESTS)
            self.assertEqual(values["compared_requests_total"], REQUESTS)
            self.assertEqual(values["class_rows_total"], REQUESTS)
            self.assertEqual(values["failed_requests_total"], 0)
            self.assertEqual(values["sqnr_db_count"], REQUESTS)
            self.assertEqual(values["max_abs_difference_count"], REQUESTS)
            self.assertGreater(values["top1_agreed_rows_total"], 0.95 * REQUESTS)
            self.assertGreaterEqual(values["top5_agreed_rows_total"], values["top1_agreed_rows_total"])
            self.assertEqual(values["shape_mismatches_total"] + values["non_finite_elements_total"], 0)
            self.assertGreater(values["sqnr_db_sum"] / REQUESTS, 15)
            print({name: value for name, value in values.items() if "bucket" not in name})

    def test_clients_figures_stay_clients_figures(self):
        with Served(SHADOW) as served:
            for number in range(50):
                served.ask(number)
            served.wait_for_copies(50)
            self.assertEqual(served.variant("octet_rows_total", "int8"), 0)
            self.assertEqual(served.variant("octet_executions_total", "int8"), 0)
            self.assertEqual(served.variant("octet_request_duration_seconds_count", "int8"), 0)
            self.assertEqual(served.variant("octet_compute_duration_seconds_count", "int8"), 0)
            self.assertEqual(served.variant("octet_request_duration_seconds_count", "fp32"), 50)
            self.assertGreater(served.variant("octet_shadow_compute_duration_seconds_count", "int8"), 0)
            self.assertEqual(served.variant("octet_shadow_queue_depth", "int8"), 0)
            statistics = served.stub.ModelStatistics(messages.ModelStatisticsRequest(name="glyphs"), timeout=10).model_stats[0]
            self.assertEqual(statistics.inference_count, 50)
            self.assertEqual(statistics.inference_stats.success.count, 50)
            self.assertLessEqual(statistics.execution_count, 50)

    def test_a_bad_int8_file_is_seen_and_harms_nobody(self):
        with Served(SHADOW, lambda version: spoil(version / "int8.onnx")) as served:
            self.assert_answers_are_those_without_a_shadow(served.ask_all())
            values = served.wait_for_copies(REQUESTS)
            self.assertEqual(values["compared_requests_total"], REQUESTS)
            self.assertLess(values["top1_agreed_rows_total"], 0.9 * REQUESTS)
            self.assertLess(values["sqnr_db_sum"] / REQUESTS, 10)
            print({name: value for name, value in values.items() if "bucket" not in name})

    def test_a_guard_takes_a_bad_file_out_of_the_split_until_a_good_one_is_loaded(self):
        guard = "guard: {int8: {agreement_percent: 95, window_seconds: 1, min_samples: 20, action: fall_back}}"
        routing = f"routing: {{split: {{fp32: 1, int8: 1}}, shadow: {{precision: int8, percent: 100}}, {guard}}}\n"
        good = tempfile.TemporaryDirectory()
        self.addCleanup(good.cleanup)

        def change(version):
            shutil.copy(version / "int8.onnx", good.name)
            spoil(version / "int8.onnx")

        with Served(routing, change) as served:
            self.assertEqual({precision for _, precision in served.ask_all()}, {"fp32", "int8"})
            self.wait_while_asking(served, lambda: served.variant("octet_guard_tripped", "int8") == 1)
            self.assertEqual({precision for _, precision in served.ask_all()}, {"fp32"})
            request = served.request(0)
            request.parameters["precision"].string_param = "int8"
            self.assertEqual(served.stub.ModelInfer(request, timeout=20).parameters["precision"].string_param, "int8")
            (line,) = [line for line in served.server.log.read_text().splitlines() if "event=guard_action" in line]
            self.assertRegex(line, r'variant=glyphs/1/int8 action=fall_back reason="agreement [0-9.]+ % < 95 %"')
            shutil.copy(pathlib.Path(good.name) / "int8.onnx", served.models / "glyphs/1/int8.onnx")
            served.stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name="glyphs"), timeout=60)
            self.assertEqual(served.variant("octet_guard_tripped", "int8"), 0)
            until = time.monotonic() + 3
            self.wait_while_asking(served, lambda: time.monotonic() > until)
            self.assertEqual({precision for _, precision in served.ask_all()}, {"fp32", "int8"})
            self.assertEqual(served.variant("octet_guard_tripped", "int8"), 0)

    def wait_while_asking(self, served, condition):
        until = time.monotonic() + 20
        for number in range(10**9):
            served.ask(number)
            if condition():
                return
            self.assertLess(time.monotonic(), until)

    def test_a_share_is_compared(self):
        with Served(SHADOW.replace("percent: 100", "percent: 25")) as served:
            self.assert_answers_are_those_without_a_shadow(served.ask_all())
            time_out = time.monotonic() + 20
            while served.variant("octet_shadow_queue_depth", "int8") > 0 and time.monotonic() < time_out:
                time.sleep(0.05)
            self.assertTrue(0.1 * REQUESTS < served.shadow()["compared_requests_total"] < 0.4 * REQUESTS, served.shadow())

    def test_a_missing_file_drops_copies_and_answers(self):
        with Served(SHADOW, lambda version: (version / "int8.onnx").unlink()) as served:
            self.assertEqual(served.ask(0), self.expected[0])
            self.assertEqual(served.wait_for_copies(1)["dropped_requests_total not_ready"], 1)

    def test_mistakes_in_the_key_have_their_place(self):
        cases = {
            "shadow: {precision: int4, percent: 5}": ":23: routing.shadow.precision: expected one of fp32",
            "shadow: {precision: int8, percent: 101}": ":38: routing.shadow.percent: expected 0 .. 100, got 101",
            "shadow: {against: int8, precision: int8, percent: 5}": ":38: routing.shadow.precision: a precision is not compared",
        }
        with tempfile.TemporaryDirectory() as folder:
            model = pathlib.Path(folder) / "glyphs"
            shutil.copytree(served_models.GLYPHS, model)
            for text, expected in cases.items():
                with self.subTest(text):
                    (model / "model.yaml").write_text("routing:\n  " + text + "\n")
                    command = [OCTET, "serve", "--check-config", "--repository", folder]
                    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
                    self.assertEqual(done.returncode, 1)
                    self.assertIn(f"model.yaml:2{expected}", done.stderr)


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
