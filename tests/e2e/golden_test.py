#!/usr/bin/env python3
"""Answers that a server holds its precisions to: who is refused, who is the default, and that the index says why.

usage: golden_test.py OCTET
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import urllib.request

import grpc
import served_glyphs
import served_models
from served_glyphs import Served, spoil

OCTET = ""
AUTO = "routing: {default: auto}\n"


def setUpModule():
    served_glyphs.set_up()


def tearDownModule():
    served_glyphs.tear_down()


def write_golden(version):
    words = ["--data", served_models.ROOT / "demo/data/test.npz", "--map", served_models.GLYPHS / "model.yaml", "--samples", "8"]
    subprocess.run([OCTET, "golden", version, *words], stdout=subprocess.DEVNULL, timeout=120, check=True)


class GoldenTest(unittest.TestCase):
    def reason(self, served):
        """Returns what the index says of the model."""
        (row,) = served.stub.RepositoryIndex(served_glyphs.messages.RepositoryIndexRequest(), timeout=20).models
        return row.reason

    def reasons(self, served):
        """Returns what the experiment says of each precision."""
        with urllib.request.urlopen(f"http://{served.server.http}/v2/experiments", timeout=20) as answer:
            (experiment,) = json.load(answer)["experiments"]
        return {arm["precision"]: arm["reason"] for arm in experiment["precisions"]}

    def load(self, served):
        served.stub.RepositoryModelLoad(served_glyphs.messages.RepositoryModelLoadRequest(model_name="glyphs"), timeout=60)

    def test_the_fastest_of_those_that_keep_to_the_answers_is_the_default(self):
        with Served(OCTET, AUTO) as served:
            self.assertEqual(served.ask(0)[1], "fp32")
            self.assertRegex(
                self.reason(served),
                r"^default fp32: fp32 takes \d+\.\d+ ms, the most exact one; int8 takes \d+\.\d+ ms, no golden\.npz: not a candidate$",
            )
            self.assertEqual(self.reasons(served), {"fp32": "", "int8": "default: auto: no golden.npz: not a candidate"})
            write_golden(served.models / "glyphs/1")
            self.load(served)
            kept = r"(\w+) takes (\d+\.\d+) ms, keeps to golden\.npz"
            reason = self.reason(served)
            self.assertRegex(reason, rf"^default \w+: {kept}; {kept}$")
            times = {precision: float(ms) for precision, ms in re.findall(kept, reason)}
            self.assertEqual(set(times), {"fp32", "int8"})
            default = re.match(r"default (\w+): ", reason)[1]
            # Rounded they may be the same.
            self.assertEqual(times[default], min(times.values()), reason)
            self.assertEqual(served.ask(0)[1], default)
            self.assertEqual(self.reasons(served), {"fp32": "", "int8": ""})

    def test_a_precision_that_answers_otherwise_is_not_served_and_the_index_says_how_far_it_is(self):
        def change(version):
            write_golden(version)
            spoil(version / "int8.onnx")

        with Served(OCTET, AUTO, change) as served:
            refusal = r"the answers on this CPU are not those of \S+/glyphs/1/golden\.npz: SQNR -?\d+\.\d dB, expected at least 15; agreement \d"
            self.assertRegex(self.reason(served), rf"^int8: .*{refusal}")
            self.assertRegex(self.reasons(served)["int8"], refusal)
            self.assertEqual(self.reasons(served)["fp32"], "")
            self.assertEqual(served.ask(0)[1], "fp32")
            with self.assertRaises(grpc.RpcError) as refused:
                served.ask(0, precision="int8")
            self.assertEqual(refused.exception.code(), grpc.StatusCode.UNAVAILABLE)

    def test_answers_do_not_take_the_place_of_the_samples(self):
        with tempfile.TemporaryDirectory() as version:
            shutil.copy(served_models.GLYPHS / "1/fp32.onnx", version)
            data = pathlib.Path(version) / "golden.npz"
            shutil.copy(served_models.ROOT / "demo/data/test.npz", data)
            before = data.read_bytes()
            for given in (data, version):
                words = [OCTET, "golden", version, "--data", given, "--map", served_models.GLYPHS / "model.yaml"]
                done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
                self.assertEqual(done.returncode, 1)
                self.assertIn(f"cannot write '{data}': it would ", done.stderr)
                self.assertEqual(data.read_bytes(), before)


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
