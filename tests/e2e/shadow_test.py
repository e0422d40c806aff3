#!/usr/bin/env python3
"""Lets `octet serve` copy requests to another precision, and holds what it counts against what it was asked.

usage: shadow_test.py OCTET
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import numpy
import served_glyphs
import served_models
from served_glyphs import Served, spoil

OCTET = ""
REQUESTS = 256
SHADOW = "routing: {default: fp32, shadow: {precision: int8, against: fp32, percent: 100, max_queue_requests: 10000}}\n"


def setUpModule():
    served_glyphs.set_up()


def tearDownModule():
    served_glyphs.tear_down()


class ShadowTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with Served(OCTET, "routing: {default: fp32}\n") as alone:
            cls.expected = alone.ask_all(REQUESTS)

    def assert_answers_are_those_without_a_shadow(self, answers):
        self.assertEqual({precision for _, precision in answers}, {"fp32"})
        self.assertEqual(answers, self.expected)

    def test_every_answer_is_compared_and_none_is_another(self):
        with Served(OCTET, SHADOW) as served:
            self.assert_answers_are_those_without_a_shadow(served.ask_all(REQUESTS))
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
        with Served(OCTET, SHADOW) as served:
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
            statistics = served.stub.ModelStatistics(served_glyphs.messages.ModelStatisticsRequest(name="glyphs"), timeout=10).model_stats[0]
            self.assertEqual(statistics.inference_count, 50)
            self.assertEqual(statistics.inference_stats.success.count, 50)
            self.assertLessEqual(statistics.execution_count, 50)

    def test_a_bad_int8_file_is_seen_and_harms_nobody(self):
        with Served(OCTET, SHADOW, lambda version: spoil(version / "int8.onnx")) as served:
            self.assert_answers_are_those_without_a_shadow(served.ask_all(REQUESTS))
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

        with Served(OCTET, routing, change) as served:
            self.assertEqual({precision for _, precision in served.ask_all(REQUESTS)}, {"fp32", "int8"})
            self.wait_while_asking(served, lambda: served.variant("octet_guard_tripped", "int8") == 1)
            self.assertEqual({precision for _, precision in served.ask_all(REQUESTS)}, {"fp32"})
            request = served.request(0)
            request.parameters["precision"].string_param = "int8"
            self.assertEqual(served.stub.ModelInfer(request, timeout=20).parameters["precision"].string_param, "int8")
            (line,) = [line for line in served.server.log.read_text().splitlines() if "event=guard_action" in line]
            self.assertRegex(line, r'variant=glyphs/1/int8 action=fall_back share=0 reason="agreement [0-9.]+ % < 95 %"')
            shutil.copy(pathlib.Path(good.name) / "int8.onnx", served.models / "glyphs/1/int8.onnx")
            served.stub.RepositoryModelLoad(served_glyphs.messages.RepositoryModelLoadRequest(model_name="glyphs"), timeout=60)
            # The guard before may have said something while the new one was made: until that one looks.
            self.wait_while_asking(served, lambda: served.variant("octet_guard_tripped", "int8") == 0)
            until = time.monotonic() + 3
            self.wait_while_asking(served, lambda: time.monotonic() > until)
            self.assertEqual({precision for _, precision in served.ask_all(REQUESTS)}, {"fp32", "int8"})
            self.assertEqual(served.variant("octet_guard_tripped", "int8"), 0)

    def test_what_reaches_a_model_through_a_pipeline_is_its_traffic(self):
        guard = "guard: {int8: {agreement_percent: 95, window_seconds: 1, min_samples: 20, action: fall_back}}"
        routing = f"routing: {{split: {{fp32: 1, int8: 1}}, shadow: {{precision: int8, percent: 100}}, {guard}}}\ncapture: {{percent: 100}}\n"
        with tempfile.TemporaryDirectory() as captures:
            configuration = f"capture: {{path: '{captures}', write_seconds: 1}}\n"
            with Served(OCTET, routing, lambda version: spoil(version / "int8.onnx"), configuration) as served:
                (served.models / "pipe").mkdir()
                (served.models / "pipe/model.yaml").write_text("pipeline: {steps: {classify: {model: glyphs}}, outputs: {scores: classify.logits}}\n")
                served.stub.RepositoryModelLoad(served_glyphs.messages.RepositoryModelLoadRequest(model_name="pipe"), timeout=60)
                asked = 0

                def ask(number):
                    nonlocal asked
                    request = served.request(number)
                    request.model_name = "pipe"
                    asked += 1
                    return served.stub.ModelInfer(request, timeout=20).raw_output_contents[0]

                self.assertTrue(any(ask(number) != self.expected[number][0] for number in range(REQUESTS)))
                self.wait_while_asking(served, lambda: served.variant("octet_guard_tripped", "int8") == 1, ask)
                self.assertEqual([ask(number) for number in range(REQUESTS)], [answer for answer, _ in self.expected])
                self.assertGreater(served.shadow()["compared_requests_total"], 0)
                file = pathlib.Path(captures) / "glyphs/1/uint8-3x32x32.npz"
                end = time.monotonic() + 20
                while len(kept := numpy.load(file)["image"] if file.exists() else []) < asked:
                    self.assertLess(time.monotonic(), end)
                    time.sleep(0.1)
                self.assertEqual(len(kept), asked)
                self.assertLessEqual({image.tobytes() for image in served.images[:REQUESTS]}, {image.tobytes() for image in kept})

    def wait_while_asking(self, served, condition, ask=None):
        until = time.monotonic() + 60
        for number in range(10**9):
            (ask or served.ask)(number)
            if condition():
                return
            self.assertLess(time.monotonic(), until)

    def test_a_share_is_compared(self):
        with Served(OCTET, SHADOW.replace("percent: 100", "percent: 25")) as served:
            self.assert_answers_are_those_without_a_shadow(served.ask_all(REQUESTS))
            time_out = time.monotonic() + 20
            while served.variant("octet_shadow_queue_depth", "int8") > 0 and time.monotonic() < time_out:
                time.sleep(0.05)
            self.assertTrue(0.1 * REQUESTS < served.shadow()["compared_requests_total"] < 0.4 * REQUESTS, served.shadow())

    def test_a_missing_file_drops_copies_and_answers(self):
        with Served(OCTET, SHADOW, lambda version: (version / "int8.onnx").unlink()) as served:
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
