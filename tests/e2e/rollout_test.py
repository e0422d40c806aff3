#!/usr/bin/env python3
"""Rolls an int8 file out on live traffic, a good one and a bad one, while a client holds every answer against the expected one.

usage: rollout_test.py OCTET
"""

import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

import numpy
import onnx
import onnx.numpy_helper
import served_glyphs
import served_models
from rollout_case import RolloutCase, Traffic, restart
from served_glyphs import IMAGES, Served, spoil
from stand_in import StandIn

OCTET = ""
CALIBRATION = served_models.ROOT / "demo/data/calibration.npz"
ALONE = "routing: {default: fp32}\n"
LONG = ["--hold-seconds", "600", "--patience-seconds", "3600"]


def setUpModule():
    served_glyphs.set_up()


def tearDownModule():
    served_glyphs.tear_down()


def without_int8(version):
    (version / "int8.onnx").unlink()


def write_slow_glyphs(source, path, channels=256, layers=40):
    """Writes a model with the same answers that takes 24 billion multiply-adds more."""
    model = onnx.load(source)
    graph = model.graph
    constants, nodes, last = {}, [], graph.input[0].name
    for i in range(layers):
        weights = "slow_first" if i == 0 else "slow_others"
        constants[weights] = numpy.zeros((channels, 3 if i == 0 else channels, 3, 3), numpy.float32)
        nodes.append(onnx.helper.make_node("Conv", [last, weights], [f"slow_{i}"], pads=[1, 1, 1, 1]))
        last = f"slow_{i}"
    nodes.append(onnx.helper.make_node("GlobalAveragePool", [last], ["slow_mean"]))
    nodes.append(onnx.helper.make_node("Flatten", ["slow_mean"], ["slow_flat"]))
    classes = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    constants["slow_out"] = numpy.zeros((channels, classes), numpy.float32)
    nodes.append(onnx.helper.make_node("MatMul", ["slow_flat", "slow_out"], ["slow_nothing"]))
    answer = graph.output[0].name
    for node in graph.node:
        node.output[:] = ["fast_" + name if name == answer else name for name in node.output]
    nodes.append(onnx.helper.make_node("Add", ["fast_" + answer, "slow_nothing"], [answer]))
    graph.node.extend(nodes)
    graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.checker.check_model(model)
    onnx.save(model, path)


def with_one_score(version):
    """Makes the model answer the sum of its logits alone."""
    without_int8(version)
    model = onnx.load(version / "fp32.onnx")
    output = model.graph.output[0]
    classes = output.type.tensor_type.shape.dim[1]
    ones = numpy.ones((classes.dim_value, 1), numpy.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(ones, "ones"))
    model.graph.node.append(onnx.helper.make_node("MatMul", [output.name, "ones"], ["score"]))
    output.name, classes.dim_value = "score", 1
    onnx.checker.check_model(model)
    onnx.save(model, version / "fp32.onnx")


class RolloutTest(RolloutCase):
    octet = property(lambda self: OCTET)

    @classmethod
    def setUpClass(cls):
        cls._folder = tempfile.TemporaryDirectory()
        cls.good = pathlib.Path(cls._folder.name) / "good.onnx"
        cls.bad = pathlib.Path(cls._folder.name) / "bad.onnx"

        def keep(version):
            shutil.copy(version / "int8.onnx", cls.good)

        with Served(OCTET, ALONE, keep) as served:
            cls.fp32 = {number: served.ask(number)[0] for number in range(len(IMAGES))}
            cls.int8 = {number: served.ask(number, precision="int8")[0] for number in range(len(IMAGES))}
        shutil.copy(cls.good, cls.bad)
        spoil(cls.bad)

    @classmethod
    def tearDownClass(cls):
        cls._folder.cleanup()

    def test_a_good_file_is_promoted_step_by_step(self):
        with Served(OCTET, ALONE, without_int8) as served:
            with Traffic(served) as traffic:
                code, out, _ = self.rollout(served, "--calibration", CALIBRATION, "--require-int8", "90")
            self.assertEqual(code, 0, out)
            stages = ["shadow", "ramp to 20 %", "ramp to 60 %", "ramp to 100 %", "promoted"]
            self.assertEqual(self.events(served), ["begin", "install", *stages])
            self.assertEqual(traffic.precisions(), {"fp32", "int8"})
            self.assertGreater(len(traffic.answers), 200)
            self.assert_every_answer_is_right(traffic, served)
            self.assertEqual({precision for _, precision in served.ask_all(20)}, {"int8"})
            proof = json.loads((served.models / "glyphs/.rollout/proof.json").read_text())
            self.assertGreater(proof["agreement"], 95)
            self.assertGreater(proof["mac_share"]["int8"], 0.9)
            macs = {run: sum(layer["macs"] for layer in proof["layers"] if layer["runs"] == run) for run in ("int8", "f32")}
            self.assertAlmostEqual(macs["int8"] / sum(macs.values()), proof["mac_share"]["int8"], delta=0.01)
            page = (served.models / "glyphs/.rollout/report.html").read_text()
            self.assertIn('"name":"candidate"', page)
            self.assertIn(f"report: {served.models}/glyphs/.rollout/report.html\n", out)
            self.assertEqual(self.rollout(served)[0], 1, "int8 answers already")

    def test_the_traffic_itself_is_the_calibration_set(self):
        with tempfile.TemporaryDirectory() as captures:
            configuration = f"capture: {{path: {captures}, write_seconds: 1}}\n"
            with Served(OCTET, ALONE, without_int8, configuration) as served:
                calibration = served.models / "glyphs/.rollout/calibration.npz"
                command = self.command(served, "--captures", captures, "--capture-samples", "150")
                with Traffic(served) as traffic, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                    self.wait_for_line(process, "capture: 150 samples")
                    self.wait_for_line(process, "candidate: ")
                    self.assertEqual(calibration.stat().st_mode & 0o777, 0o600)
                    self.wait_for_line(process, "promoted")
                self.assertEqual(process.returncode, 0)
                self.assertEqual(traffic.precisions(), {"fp32", "int8"})
                self.assert_every_answer_is_right(traffic, served)
                self.assertFalse(calibration.exists(), "clients' data are kept no longer than they are needed")
                self.assertNotIn("capture", (served.models / "glyphs/rollout.yaml").read_text())

    def test_captures_that_cannot_come_end_it(self):
        with tempfile.TemporaryDirectory() as captures:
            configuration = f"capture: {{path: {captures}, write_seconds: 1}}\n"
            words = ["--captures", captures, "--capture-samples", "150", "--patience-seconds", "1000"]
            with Served(OCTET, ALONE, without_int8, configuration) as away:
                with subprocess.Popen(self.command(away, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                    self.wait_for_line(process, "capture: 150 samples")
                    away.server.process.kill()
                    self.leave_a_full_sample(words, configuration)
                    _, errors = process.communicate(timeout=120)
                self.assertEqual(process.returncode, 1, "the same command goes on when the server is back")
                self.assertIn("no answer from", errors)
                restart(away.server)

    def leave_a_full_sample(self, words, configuration):
        little = ALONE + "capture: {percent: 0, max_bytes: 100000}\n"
        with Served(OCTET, little, without_int8, configuration) as served, Traffic(served):
            code, _, errors = self.rollout(served, *words)
            self.assertEqual(code, 3)
            fits = re.search(r"the server's sample is full with (\d+) of 150 samples: .*capture.max_bytes, or --capture-samples (\d+)", errors)
            self.assertIsNotNone(fits, errors)
            self.assertEqual(fits[1], fits[2])
            self.assertFalse((served.models / "glyphs/rollout.yaml").exists())
            self.assertFalse((served.models / "glyphs/.rollout/calibration.npz").exists())
            code, out, errors = self.rollout(served, *words, "--capture-samples", fits[2])
            self.assertEqual(code, 0, errors)

    def test_a_bad_file_is_rolled_back_and_no_client_notices(self):
        with Served(OCTET, ALONE, without_int8) as served:
            before = sorted(path.name for path in (served.models / "glyphs/1").iterdir())
            with Traffic(served) as traffic:
                code, out, errors = self.rollout(served, "--candidate", self.bad)
            self.assertEqual(code, 3, out)
            self.assertRegex(errors, r"int8 was rolled back: the guard of int8: agreement [0-9.]+ % < 90 %")
            self.assertEqual(traffic.precisions(), {"fp32"})
            self.assert_every_answer_is_right(traffic, served)
            self.assertEqual(sorted(path.name for path in (served.models / "glyphs/1").iterdir()), before)
            self.assertFalse((served.models / "glyphs/rollout.yaml").exists())
            self.assertTrue((served.models / "glyphs/.rollout/rejected.onnx").exists())
            self.assertEqual(self.events(served), ["begin", "install", "shadow", "rolled back"])
            rejected = served.models / "glyphs/.rollout/rejected.onnx"
            self.assertEqual(self.rollout(served, "--candidate", served.models / "none.onnx")[0], 1)
            self.assertEqual(rejected.read_bytes(), self.bad.read_bytes(), "a mistake removes nothing")
            with Traffic(served):
                code, _, errors = self.rollout(served, "--candidate", rejected, "--min-agreement", "0")
            self.assertEqual(code, 0, errors)
            self.assertEqual((served.models / "glyphs/1/int8.onnx").read_bytes(), self.bad.read_bytes())

    def test_what_a_promotion_replaced_outlives_the_next_rollouts(self):
        with Served(OCTET, ALONE) as served, Traffic(served) as traffic:
            file, previous = served.models / "glyphs/1/int8.onnx", served.models / "glyphs/.rollout/previous.onnx"
            before = file.read_bytes()
            half = served.models / "glyphs/.rollout/.calibration.npz.1-0.tmp"
            half.parent.mkdir()
            half.write_bytes(b"what a process that was killed had half written")
            code, _, errors = self.rollout(served, "--calibration", CALIBRATION)
            self.assertEqual(code, 0, errors)
            self.assertFalse(half.exists())
            self.assertEqual(previous.read_bytes(), before)
            code, _, errors = self.rollout(served, "--to", "bf16")
            self.assertEqual(code, 0, errors)
            self.assertEqual(previous.read_bytes(), before)
            self.assertEqual(traffic.failures, [])

    def test_a_candidate_with_external_data_is_taken_whole(self):
        with Served(OCTET, ALONE, without_int8) as served:
            with tempfile.TemporaryDirectory() as folder, Traffic(served) as traffic:
                candidate = pathlib.Path(folder) / "int8.onnx"
                onnx.save(onnx.load(self.good), candidate, save_as_external_data=True, location="weights", size_threshold=0)
                self.assertLess(candidate.stat().st_size, self.good.stat().st_size / 2)
                code, _, errors = self.rollout(served, "--candidate", candidate)
            self.assertEqual(code, 0, errors)
            self.assertGreater((served.models / "glyphs/1/int8.onnx").stat().st_size, self.good.stat().st_size * 0.9)
            self.assert_every_answer_is_right(traffic, served)

    def test_who_fails_on_the_ramp_alone_is_rolled_back_and_every_answer_was_right(self):
        with Served(OCTET, ALONE, without_int8) as served:
            before = sorted(path.name for path in (served.models / "glyphs/1").iterdir())
            with Traffic(served) as traffic:
                # Copies have no such time: only clients' own requests show it.
                code, out, errors = self.rollout(served, "--candidate", self.good, "--max-p99-us", "1")
            self.assertEqual(code, 3, out)
            self.assertRegex(errors, r"int8 was rolled back: the guard of int8: slower than 1 us 100.00 % > 1 %")
            self.assertEqual(self.events(served), ["begin", "install", "shadow", "ramp to 20 %", "rolled back"])
            self.assertEqual(traffic.precisions(), {"fp32", "int8"})
            self.assert_every_answer_is_right(traffic, served, self.int8)
            self.assertEqual(sorted(path.name for path in (served.models / "glyphs/1").iterdir()), before)
            self.assertFalse((served.models / "glyphs/rollout.yaml").exists())
            self.assertEqual({precision for _, precision in served.ask_all(20)}, {"fp32"})

    def test_who_refuses_what_the_baseline_answers_is_rolled_back(self):
        class Hurried(Served):
            patience_us = 150_000  # Half of what the candidate takes on a fast processor, a hundred times what the baseline does.

            def request(self, number):
                request = super().request(number)
                request.parameters["timeout"].int64_param = self.patience_us
                return request

        with Hurried(OCTET, ALONE, without_int8) as served:
            slow = served.models / "slow.onnx"
            write_slow_glyphs(served.models / "glyphs/1/fp32.onnx", slow)
            with Traffic(served) as traffic:
                # Without patience enough for a day nobody would go back: a refusal is no error, and has no time.
                words = ["--candidate", slow, "--min-agreement", "0", "--min-shadow-requests", "5", "--patience-seconds", "86400"]
                code, out, errors = self.rollout(served, *words)
            self.assertEqual(code, 3, out)
            self.assertRegex(errors, r"int8 was rolled back: \d+ windows in which more than 1 % of the requests to int8 were refused")
            self.assertEqual(self.events(served), ["begin", "install", "shadow", "ramp to 20 %", "rolled back"])
            self.assertGreater(len(traffic.failures), 0)
            self.assertEqual([failure for failure in traffic.failures if "DEADLINE_EXCEEDED" not in failure], [])
            served.patience_us = 20_000_000  # What is asked now is who answers, not how soon.
            self.assertEqual({precision for _, precision in served.ask_all(20)}, {"fp32"})

    def test_a_rollout_that_is_killed_on_the_ramp_goes_on_there(self):
        with Served(OCTET, ALONE, without_int8) as served, Traffic(served) as traffic:
            command = self.command(served, "--candidate", self.good, "--hold-seconds", "3")
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                self.wait_for_line(process, "ramp to 20 %")
                self.wait_for_event(served, process, "ramp to 20 %")
                process.kill()
            code, out, _ = self.rollout(served, "--candidate", self.good)
            self.assertEqual(code, 0, out)
            self.assertEqual(out.splitlines()[0], "going on: ramp to 20 %")
            stages = ["shadow", "ramp to 20 %", "ramp to 60 %", "ramp to 100 %", "promoted"]
            self.assertEqual(self.events(served), ["begin", "install", *stages])
        self.assertEqual(traffic.precisions(), {"fp32", "int8"})
        self.assertEqual(traffic.failures, [])

    def test_a_bad_file_does_not_get_near_the_traffic_when_data_show_it(self):
        with Served(OCTET, ALONE, without_int8) as served:
            code, _, errors = self.rollout(served, "--candidate", self.bad, "--calibration", CALIBRATION)
            self.assertEqual(code, 3)
            self.assertRegex(errors, r"int8 was refused: agreement, %, over the calibration data: [0-9.]+, expected at least 90")
            self.assertFalse((served.models / "glyphs/1/int8.onnx").exists())
            garbage = served.models / "garbage.onnx"
            garbage.write_bytes(b"\xff" * 1000)
            code, _, errors = self.rollout(served, "--candidate", garbage)
            self.assertEqual(code, 3)
            self.assertIn("not an ONNX model", errors)
            self.assertEqual(self.events(served), ["begin", "refused"] * 2)

    def test_a_file_that_answers_nan_is_refused(self):
        with Served(OCTET, ALONE, without_int8) as served:
            model = onnx.load(served.models / "glyphs/1/fp32.onnx")
            last = model.graph.node[-1]
            bias = next(tensor for tensor in model.graph.initializer if tensor.name == last.input[-1])
            values = onnx.numpy_helper.to_array(bias).copy()
            values[:] = numpy.nan
            bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
            onnx.save(model, served.models / "nan.onnx")
            words = ["--to", "bf16", "--candidate", served.models / "nan.onnx", "--min-agreement", "0", "--min-sqnr-db", "20"]
            code, _, errors = self.rollout(served, *words, "--calibration", CALIBRATION)
            self.assertEqual(code, 3)
            self.assertRegex(errors, r"bf16 was refused: SQNR, dB, over the calibration data: none, \d+ elements are a NaN or infinite")
            self.assertFalse((served.models / "glyphs/1/bf16.onnx").exists())
            with Traffic(served) as traffic:
                code, _, errors = self.rollout(served, *words)
            self.assertEqual(code, 3)
            self.assertIn("the guard of bf16: sqnr -inf dB < 20 dB", errors)
            self.assertEqual(traffic.precisions(), {"fp32"})

    def test_agreement_on_classes_that_do_not_exist_is_refused_before_it_gets_near_the_traffic(self):
        with Served(OCTET, ALONE, with_one_score) as served:
            words = ["--to", "bf16", "--calibration", CALIBRATION]
            code, out, errors = self.rollout(served, *words)
            self.assertEqual(code, 3, out)
            self.assertIn("bf16 was refused: agreement on classes is asked for, and no output has class scores", errors)
            self.assertEqual(self.events(served), ["begin", "refused"])
            self.assertFalse((served.models / "glyphs/1/bf16.onnx").exists())
            self.assertFalse((served.models / "glyphs/rollout.yaml").exists())
            with Traffic(served) as traffic:
                code, _, errors = self.rollout(served, *words, "--min-agreement", "0")
            self.assertEqual(code, 0, errors)
            self.assertEqual(traffic.failures, [])

    def test_a_killed_rollout_goes_on_or_is_taken_back(self):
        with Served(OCTET, ALONE, without_int8) as served, Traffic(served) as traffic:
            words = ["--candidate", self.good, *LONG]
            with subprocess.Popen(self.command(served, *words), stdout=subprocess.PIPE, text=True) as process:
                self.wait_for_line(process, "shadow")
                busy = subprocess.run(self.command(served), capture_output=True, text=True, timeout=60, check=False)
                self.assertEqual(busy.returncode, 1)
                self.assertIn("another process is at work on this rollout", busy.stderr)
                self.wait_for_event(served, process, "shadow")
                process.kill()
            with subprocess.Popen(self.command(served), stdout=subprocess.PIPE, text=True) as process:
                self.assertEqual(process.stdout.readline(), "going on: shadow\n")
                self.assertEqual(process.stdout.readline(), "  by the options that it was begun with\n")
                process.kill()
            self.assertEqual(traffic.precisions(), {"fp32"})
            self.assertEqual(self.rollout(served, "--to", "bf16")[0], 1)
            code, out, _ = self.rollout(served, "--abort")
            self.assertEqual((code, out), (0, "rolled back: asked for with --abort\n"))
            self.assertFalse((served.models / "glyphs/1/int8.onnx").exists())
            self.assertEqual(self.rollout(served, "--abort")[0], 1)
            self.assertEqual(traffic.failures, [])

    def test_a_rollback_that_the_server_does_not_follow_is_not_over(self):
        with Served(OCTET, ALONE, without_int8) as served, Traffic(served):
            words = ["--candidate", self.good, *LONG]
            with subprocess.Popen(self.command(served, *words), stdout=subprocess.PIPE, text=True) as process:
                self.wait_for_line(process, "shadow")
                process.kill()
            with StandIn(502) as proxy:
                for _ in range(2):
                    code, out, errors = self.rollout(served, "--abort", "--server", proxy.address)
                    self.assertEqual(code, 1)
                    self.assertIn("the server has not followed", out)
                    self.assertIn("answered 502", errors)
            code, out, errors = self.rollout(served, "--abort", "--server", "127.0.0.1:1")
            self.assertEqual(code, 1)
            self.assertIn("the server has not followed", out)
            self.assertIn("no answer from http://127.0.0.1:1", errors)
            self.assertIn("int8", self.experiment(served))
            code, out, _ = self.rollout(served, "--abort")
            self.assertEqual((code, out), (0, "rolled back: asked for with --abort\n"))
            self.assertNotIn("int8", self.experiment(served))

    def test_a_server_that_does_not_say_what_the_guard_has_seen_takes_it_back(self):
        """As one of another version, which is there in its place meanwhile."""
        with Served(OCTET, ALONE, without_int8) as served, Traffic(served):
            words = ["--candidate", self.good, *LONG]
            with subprocess.Popen(self.command(served, *words), stdout=subprocess.PIPE, text=True) as process:
                self.wait_for_line(process, "shadow")
                self.wait_for_event(served, process, "shadow")
                process.kill()
            self.assertTrue((served.models / "glyphs/1/int8.onnx").exists())

            def without_guards(path, body):
                proxy.target = 502  # What comes next is the load behind the rollback.
                kept = json.loads(body, object_hook=lambda part: {key: value for key, value in part.items() if key != "guard"})
                return json.dumps(kept).encode()

            with StandIn(served.server.http, change=without_guards) as proxy:
                code, out, _ = self.rollout(served, "--server", proxy.address)
            self.assertEqual(code, 1)
            self.assertIn("the server has not followed", out)
            self.assertFalse((served.models / "glyphs/1/int8.onnx").exists())
            code, _, errors = self.rollout(served)
            self.assertEqual(code, 3)
            self.assertIn("what answers is no octet server of this version", errors)
            self.assertEqual(self.experiment(served), {"fp32"})

    def test_an_address_at_which_several_servers_answer_is_refused(self):
        with Served(OCTET, ALONE, without_int8) as served, Served(OCTET, ALONE, without_int8) as other:
            with StandIn(served.server.http) as proxy:
                turns = itertools.cycle([other.server.http, served.server.http])
                proxy.before = lambda path: setattr(proxy, "target", next(turns))
                code, _, errors = self.rollout(served, "--candidate", self.good, "--server", proxy.address)
            self.assertEqual(code, 1)
            self.assertIn(f"several servers answer in turn, expected the address of one of those that serve the repository, got '{proxy.address}'", errors)
            self.assertFalse((served.models / "glyphs/rollout.yaml").exists())

    def test_a_server_that_restarts_twice_takes_it_back(self):
        with Served(OCTET, ALONE, without_int8) as served:
            words = ["--candidate", self.good, "--hold-seconds", "8"]
            with Traffic(served), subprocess.Popen(
                self.command(served, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as process:
                self.wait_for_line(process, "ramp to 20 %")
                self.wait_for_line(process, "  ")  # it has been looked at
                for _ in range(2):
                    served.server.process.kill()
                    restart(served.server)
                    self.wait_for_line(process, "  the server restarted")
                _, errors = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 3, errors)
            self.assertIn("the server restarted 2 times while int8 was on trial", errors)
            self.assertEqual(self.events(served)[-3:], ["restart", "restart", "rolled back"])
            self.assertFalse((served.models / "glyphs/1/int8.onnx").exists())
            self.assertEqual(self.experiment(served), {"fp32"})

    def test_an_operators_own_loads_are_no_restarts(self):
        with Served(OCTET, ALONE, without_int8) as served:
            words = ["--candidate", self.good, "--hold-seconds", "3"]
            model_yaml = served.models / "glyphs/model.yaml"
            text = model_yaml.read_text()
            with Traffic(served) as traffic, subprocess.Popen(self.command(served, *words), stdout=subprocess.PIPE, text=True) as process:
                self.wait_for_line(process, "ramp to 20 %")
                self.wait_for_line(process, "  ")  # it has been looked at
                for number in range(3):
                    model_yaml.write_text(text.replace(ALONE, f"routing: {{default: fp32, sticky: {{parameter: p{number}}}}}\n"))
                    self.load(served)
                    self.wait_for_line(process, "  the model was loaded anew: the stage is held from its beginning")
                self.wait_for_line(process, "promoted")
            self.assertEqual(process.returncode, 0)
            self.assertEqual(traffic.failures, [])
            self.assertEqual([event for event in self.events(served) if event in ("load", "restart")], ["load"] * 3)

    def test_loads_that_recur_do_not_hold_a_stage_for_ever(self):
        with Served(OCTET, ALONE, without_int8) as served:
            words = ["--candidate", self.good, "--hold-seconds", "4", "--patience-seconds", "5"]
            model_yaml = served.models / "glyphs/model.yaml"
            text = model_yaml.read_text()
            command = self.command(served, *words)
            with Traffic(served), subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                self.wait_for_line(process, "shadow")
                for number in range(30):
                    if process.poll() is not None:
                        break
                    model_yaml.write_text(text.replace(ALONE, f"routing: {{default: fp32, sticky: {{parameter: p{number}}}}}\n"))
                    self.load(served)
                    time.sleep(1)
                is_over = process.poll() is not None
                process.kill()
                _, errors = process.communicate(timeout=60)
            self.assertTrue(is_over, "it waits still")
            self.assertRegex(errors, r"after 5 s still \d of 4 seconds held")
            self.assertEqual(self.experiment(served), {"fp32"})

    def load(self, served):
        urllib.request.urlopen(f"http://{served.server.http}/v2/repository/models/glyphs/load", data=b"", timeout=60).close()

    def test_a_precision_that_is_on_trial_already_is_rolled_out(self):
        trial = (
            "precisions: [fp32, int8]\n"
            "routing: {default: fp32, shadow: {precision: int8, percent: 50},"
            " guard: {int8: {agreement_percent: 50, action: fall_back}}}\n"
        )
        with Served(OCTET, trial) as served, Traffic(served) as traffic:
            code, _, errors = self.rollout(served, "--calibration", CALIBRATION)
            self.assertEqual(code, 0, errors)
            self.assertEqual(traffic.failures, [])

    def experiment(self, served):
        """Returns the precisions that the server lists."""
        with urllib.request.urlopen(f"http://{served.server.http}/v2/models/glyphs/experiments", timeout=10) as answer:
            return {arm["precision"] for arm in json.load(answer)["experiments"][-1]["precisions"]}

    def test_a_model_that_names_its_precisions_is_rolled_out_twice(self):
        with Served(OCTET, ALONE + "precisions: [fp32]\n", without_int8) as served, Traffic(served) as traffic:
            code, out, errors = self.rollout(served, "--to", "bf16")
            self.assertEqual(code, 0, errors)
            self.assertEqual(self.experiment(served), {"fp32", "bf16"})
            code, out, errors = self.rollout(served, "--candidate", self.good)
            self.assertEqual(code, 0, errors)
            self.assertIn("glyphs version 1: bf16 -> int8", out)
            self.assertEqual(self.experiment(served), {"fp32", "bf16", "int8"})
            self.assertEqual(traffic.failures, [])

    def test_inputs_that_are_kept_out_of_captures_are_not_captured(self):
        with tempfile.TemporaryDirectory() as captures:
            configuration = f"capture: {{path: {captures}, write_seconds: 1}}\n"
            with Served(OCTET, ALONE + "capture: {percent: 5, redact: [image]}\n", without_int8, configuration) as served:
                code, _, errors = self.rollout(served, "--captures", captures)
                self.assertEqual(code, 1)
                self.assertIn("zeros calibrate nothing, give --calibration", errors)
                self.assertFalse((served.models / "glyphs/rollout.yaml").exists())

    def test_a_model_that_serves_two_versions_is_left_alone(self):
        def twice(version):
            without_int8(version)
            shutil.copytree(version, version.parent / "2")

        with Served(OCTET, ALONE + "versions: {all: true}\n", twice) as served:
            code, _, errors = self.rollout(served, "--calibration", CALIBRATION)
            self.assertEqual(code, 1)
            self.assertIn("2 versions of the model are served", errors)
            self.assertFalse((served.models / "glyphs/rollout.yaml").exists())

    def test_what_was_there_before_comes_back(self):
        with Served(OCTET, ALONE) as served:
            file = served.models / "glyphs/1/int8.onnx"
            before = file.read_bytes()
            (served.models / "glyphs/rollout.yaml").write_text("routing: {default: fp32}\n")
            with Traffic(served):
                self.assertEqual(self.rollout(served, "--candidate", self.bad)[0], 3)
            self.assertEqual(file.read_bytes(), before)
            self.assertEqual((served.models / "glyphs/rollout.yaml").read_text(), "routing: {default: fp32}\n")

    def test_a_folder_that_the_server_does_not_capture_to_is_noticed_first(self):
        with Served(OCTET, ALONE, without_int8) as served:
            code, _, errors = self.rollout(served, "--captures", served.models)
            self.assertEqual(code, 1)
            self.assertIn("--captures: the server's configuration has no capture.path", errors)
            self.assertFalse((served.models / "glyphs/rollout.yaml").exists())
        with tempfile.TemporaryDirectory() as captures, tempfile.TemporaryDirectory() as other:
            configuration = f"capture: {{path: {os.path.relpath(captures)}, write_seconds: 1}}\n"
            with Served(OCTET, ALONE, without_int8, configuration) as served:
                (pathlib.Path(other) / ".octet-captures").write_text("0" * 32)
                code, _, errors = self.rollout(served, "--captures", other)
                self.assertEqual(code, 1)
                self.assertIn(f"its capture.path is '{os.path.realpath(captures)}', got '{other}'", errors)
                with urllib.request.urlopen(f"http://{served.server.http}/v2/experiments", timeout=10) as answer:
                    told = json.load(answer)["server"]["captures"]["mark"]
                self.assertEqual(told, (pathlib.Path(captures) / ".octet-captures").read_text())
                self.assertFalse((served.models / "glyphs/rollout.yaml").exists())
                self.assertFalse((served.models / "glyphs/.rollout/state.json").exists())

    def test_what_the_server_refuses_is_taken_back(self):
        with Served(OCTET, ALONE, without_int8) as served:
            model_yaml = served.models / "glyphs/model.yaml"
            text = model_yaml.read_text()
            words = ["--candidate", self.good, "--hold-seconds", "3"]
            with Traffic(served) as traffic, subprocess.Popen(
                self.command(served, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as process:
                self.wait_for_line(process, "shadow")
                model_yaml.write_text("colour: red\n")
                out, errors = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 3, errors)
            self.assertIn("model.yaml:1:1: colour", errors)
            self.assertIn("everything is as it was on disk, but the server has not followed", out)
            self.assertFalse((served.models / "glyphs/rollout.yaml").exists())
            self.assertFalse((served.models / "glyphs/1/int8.onnx").exists())
            model_yaml.write_text(text)
            self.load(served)
            self.assertEqual(self.experiment(served), {"fp32"})
            self.assertEqual((traffic.failures, traffic.precisions()), ([], {"fp32"}))

    def test_mistakes_change_nothing(self):
        with Served(OCTET, ALONE, without_int8) as served:
            words = {
                "other": (["--repository", "/"], "the repository has no such model"),
                "away": (["--server", "nowhere"], "expected HOST:PORT"),
                "data": ([], "int8 needs --calibration"),
                "ramp": (["--ramp", "50,20"], "expected rising shares"),
                "baseline": (["--baseline", "bf16"], "the baseline bf16 is not there"),
                "patience": (["--calibration", CALIBRATION, "--hold-seconds", "60"], "a stage takes 60 s"),
                "windows": (["--calibration", CALIBRATION, "--windows", "61"], "a stage takes 61 s"),
                "captures": (["--captures", "/nowhere"], "no such folder: '/nowhere'"),
                "candidate": (["--candidate", "/nowhere.onnx"], "--candidate: cannot read '/nowhere.onnx'"),
                "folder": (["--candidate", "/"], "--candidate: a folder, expected a file"),
                "samples": (["--calibration", "/nowhere.npz"], "--calibration: cannot read '/nowhere.npz'"),
            }
            for name, (more, expected) in words.items():
                with self.subTest(name):
                    code, _, errors = self.rollout(served, *more)
                    self.assertEqual(code, 1)
                    self.assertIn(expected, errors)
                    self.assertFalse((served.models / "glyphs/rollout.yaml").exists())


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
