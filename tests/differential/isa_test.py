#!/usr/bin/env python3
"""The same answers on every instruction set: the model suite under ONEDNN_MAX_CPU_ISA.

usage: isa_test.py ANSWERS OCTET [--report]

The demo's model always, those of ../shared/models where they are; fp32 as it is, int8 as it was shipped or as `octet quantize` makes it.
An instruction set that the processor lacks is what it has below it: the test is as strong as the machine. --report measures speeds on all
labelled samples, too, and prints a table.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import numpy as np
import onnx

import octet_answers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import demo_model  # noqa: E402
from real_models import MODELS, SHARED  # noqa: E402

ISAS = ("AVX2", "AVX512_CORE", "AVX512_CORE_VNNI", "DEFAULT")
SAMPLES = 24
REALS = ("--rtol", "1e-3", "--atol", "1e-3")  # Of scores that are computed in float, or stored so by the last layer.
STEPS = ("--steps", "1")  # Of scores that are dequantized.
REAL = ("resnet20-cifar10", "ic-resnet8-large", "vww-mobilenetv1", "kws-dscnn", "mobilenetv2")


def suite(octet, folder):
    """(name, precision, tolerance, file, samples, map) of every model in every precision."""
    words = ["quantize", demo_model.FP32, "--calibration", demo_model.CALIBRATION, "--map", demo_model.MAP, "--to", "int8", "--out", folder]
    run(octet, *words, isa=ISAS[-1])
    yield "glyphs", "fp32", REALS, demo_model.FP32, demo_model.TEST, demo_model.MAP
    yield "glyphs", "int8", REALS, folder / "int8.onnx", demo_model.TEST, demo_model.MAP
    for name in REAL if (SHARED / "models").is_dir() else ():
        model = MODELS[name]
        for precision, tolerance, file in (("fp32", REALS, model.fp32), ("int8", STEPS, model.shipped_int8)):
            if file.is_file():
                yield name, precision, tolerance, file, model.eval_data, model.map


def run(octet, *words, isa="DEFAULT"):
    """The finished process."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa}
    done = subprocess.run([octet, *map(str, words)], env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or done.stderr.startswith("octet: "):
        raise AssertionError(f"octet {' '.join(map(str, words))} under {isa}: {done.stderr}")
    return done


class Case:
    """A model, a few labelled samples, and what the default instruction set answers to them."""

    def __init__(self, answers, file, data, map_file, folder):
        model = onnx.load(file)
        integers = np.load(data)["inputs"]
        samples = demo_model.mapped(integers[:: max(1, len(integers) // SAMPLES)][:SAMPLES], map_file)
        self.file, self.golden, self.npz = file, folder, folder / "samples.npz"
        name = model.graph.input[0].name
        octet = octet_answers.Octet(answers, folder / "asked", {"ONEDNN_MAX_CPU_ISA": "DEFAULT"})
        tops = []
        for i in range(len(samples)):
            (scores,) = octet.answers(model, {name: samples[i : i + 1]}).values()
            octet_answers.write_set(folder / f"test_data_set_{i}", [samples[i : i + 1]], [scores])
            tops.append(scores.argmax())
        octet.close()
        np.savez(self.npz, inputs=samples, labels=np.array(tops))

    def against(self, octet, isa, tolerance):
        """Arg-maxes that are the default's, and the comparisons of every sample."""
        same = json.loads(run(octet, "eval", self.file, "--data", self.npz, "--batch", 1, "--json", isa=isa).stdout)["top1"]
        checked = run(octet, "check", self.file, "--golden", self.golden, *tolerance, "--json", isa=isa)
        return same, json.loads(checked.stdout)


def report(octet, isa, case, data, map_file):
    """Top-1 on all samples, their speed, and the kernels of most multiply-adds."""
    measured = json.loads(run(octet, "eval", case.file, "--data", data, "--map", map_file, "--batch", 1, "--json", isa=isa).stdout)
    layers = [x for x in json.loads(run(octet, "inspect", case.file, "--json", isa=isa).stdout)["layers"] if x["macs"]]
    split = sum("split" in x["impl"] for x in layers)
    slow = sum(x["impl"].startswith(("octet", "ref")) for x in layers)
    return f"top-1 {measured['top1']:.2f}, {measured['items_per_second']:.0f}/s, {len(layers)} layers of products, {split} split, {slow} on reference kernels"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("answers")
    parser.add_argument("octet")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for number, (model, precision, tolerance, file, data, map_file) in enumerate(suite(options.octet, folder)):
            case = Case(options.answers, file, data, map_file, folder / str(number))
            for isa in ISAS:
                same, checked = case.against(options.octet, isa, tolerance)
                ok = same == 100 and checked["ok"]
                wrong += not ok
                steps = max((c.get("max_steps", 0) for c in checked["comparisons"]), default=0)
                far = max(c["max_abs"] for c in checked["comparisons"])
                more = report(options.octet, isa, case, data, map_file) if options.report else ""
                print(f"{'ok  ' if ok else 'FAIL'} {model:<18} {precision} {isa:<17} same arg-max {same:.0f} %, largest difference {far:.2g}, "
                      f"{steps:.2f} steps {more}", flush=True)  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
