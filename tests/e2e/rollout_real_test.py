#!/usr/bin/env python3
"""Rolls int8 out for a trained ResNet-20 under traffic of CIFAR-10 images: a good file, and one that is spoilt.

usage: rollout_real_test.py OCTET
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import numpy
import real_models
import served_glyphs
from rollout_case import RolloutCase, Traffic

OCTET = ""
MODEL = real_models.MODELS["resnet20-cifar10"]


def setUpModule():
    served_glyphs.set_up()


def tearDownModule():
    served_glyphs.tear_down()


class Served(served_glyphs.Served):
    """A server of ResNet-20 in fp32."""

    model = MODEL.name
    input = "input"
    images = None

    def __init__(self):
        if Served.images is None:
            with numpy.load(MODEL.eval_data) as data:
                Served.images = data["inputs"][:500]
        super().__init__(OCTET, "routing: {default: fp32}\n")

    def make_repository(self, octet, folder):
        version = folder / "models" / self.model / "1"
        version.mkdir(parents=True)
        shutil.copy(MODEL.fp32, version)
        shutil.copyfile(MODEL.map, version.parent / "model.yaml")
        return folder / "models"


class ResNet20Test(RolloutCase):
    octet = property(lambda self: OCTET)

    @classmethod
    def setUpClass(cls):
        with Served() as served:
            cls.fp32 = {number: served.ask(number)[0] for number in range(len(served.images))}

    def test_int8_is_promoted(self):
        with Served() as served:
            with Traffic(served) as traffic:
                code, out, _ = self.rollout(served, "--calibration", MODEL.calibration_data, "--require-int8", "95")
            self.assertEqual(code, 0, out)
            self.assertEqual(self.events(served)[-1], "promoted")
            self.assertEqual(traffic.precisions(), {"fp32", "int8"})
            self.assert_every_answer_is_right(traffic, served)
            self.assertEqual({precision for _, precision in served.ask_all(20)}, {"int8"})
            proof = json.loads((served.models / served.model / ".rollout/proof.json").read_text())
            self.assertGreater(proof["agreement"], 98)

    def test_a_spoilt_file_is_rolled_back_and_no_client_notices(self):
        with tempfile.TemporaryDirectory() as folder:
            words = ["--calibration", MODEL.calibration_data, "--map", MODEL.map, "--to", "int8", "--out", folder]
            subprocess.run([OCTET, "quantize", MODEL.fp32, *words], check=True, capture_output=True, timeout=200)
            bad = pathlib.Path(folder) / "int8.onnx"
            served_glyphs.spoil(bad)
            with Served() as served:
                with Traffic(served) as traffic:
                    code, out, errors = self.rollout(served, "--candidate", bad)
                self.assertEqual(code, 3, out)
                self.assertRegex(errors, r"int8 was rolled back: the guard of int8: agreement [0-9.]+ % < 90 %")
                self.assertEqual(traffic.precisions(), {"fp32"})
                self.assert_every_answer_is_right(traffic, served)
                self.assertEqual({precision for _, precision in served.ask_all(20)}, {"fp32"})


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    real_models.skip_when_absent()
    unittest.main(verbosity=2)
