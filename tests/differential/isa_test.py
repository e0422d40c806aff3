#!/usr/bin/env python3
"""The same answers on every instruction set: the model suite under ONEDNN_MAX_CPU_ISA, which Octet's kernels on Highway keep to as well.

usage: isa_test.py ANSWERS OCTET [--report] [--only NAME...]

The demo's model always, every one of ../shared/models where they are; fp32 as it is, int8 as it was shipped or as `octet quantize` makes it.
Models without labelled data answer the inputs of their golden sets. An instruction set that the processor lacks is what it has below it:
the test is as strong as the machine. --report measures speeds on all labelled samples, too, and prints a table.
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
from onnx import numpy_helper

import octet_answers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import demo_model  # noqa: E402
from real_models import MODELS, SHARED  # noqa: E402

ISAS = ("AVX2", "AVX512_CORE", "AVX512_CORE_VNNI", "DEFAULT")
SAMPLES = 24
REALS = ("--rtol", "1e-3", "--atol", "1e-3")  # Of scores that are computed in float, or stored so by the last layer.
STEPS = ("--steps", "1")  # Of scores that are dequantized.
DYNAMIC = ("--rtol", "1e-2", "--atol", "5e-2")  # Halves of split weights are added in float: ranges move by an ulp, and ties fall over.


def suite(octet, folder):
    """(name, precision, tolerance, file, samples, map) of every model in every precision; without labels no map, and samples is a folder of
    golden sets."""
    words = ["quantize", demo_model.FP32, "--calibration", demo_model.CALIBRATION, "--map", demo_model.MAP, "--to", "int8,int8-dynamic", "--out", folder]
    run(octet, *words, isa=ISAS[-1])
    yield "glyphs", "fp32", REALS, demo_model.FP32, demo_model.TEST, demo_model.MAP
    for precision, tolerance in (("int8", REALS), ("int8-dynamic", DYNAMIC)):
        yield "glyphs", precision, tolerance, folder / f"{precision}.onnx", demo_model.TEST, demo_model.MAP
    for model in sorted((SHARED / "models").glob("*/1")):
        name = model.parent.name
        known = MODELS.get(name)
        for precision, tolerance in (("fp32", REALS), ("int8", STEPS)):
            file = model / f"{precision}.onnx"
            if not file.is_file():
                continue
            if known is not None and known.map.is_file():
                yield name, precision, tolerance, file, known.eval_data, known.map
            else:
                golden = model.parent / "golden"
                yield name, precision, tolerance, file, golden / precision if (golden / precision).is_dir() else golden, None


def run(octet, *words, isa="DEFAULT"):
    """The finished process."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa}
    done = subprocess.run([octet, *map(str, words)], env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or done.stderr.startswith("octet: "):
        raise AssertionError(f"octet {' '.join(map(str, words))} under {isa}: {done.stderr}")
    return done


class Case:
    """A model, a few samples, and what the default instruction set answers to them."""

    def __init__(self, answers, file, data, map_file, folder):
        model = onnx.load(file)
        names = [i.name for i in model.graph.input if i.name not in {c.name for c in model.graph.initializer}]
        samples = labelled(data, map_file) if map_file else golden(data)
        self.file, self.golden, self.npz = file, folder, folder / "samples.npz" if map_file else None
        octet = octet_answers.Octet(answers, folder / "asked", {"ONEDNN_MAX_CPU_ISA": "DEFAULT"})
        tops = []
        for i, inputs in enumerate(samples):
            outputs = list(octet.answers(model, dict(zip(names, inputs, strict=True))).values())
            octet_answers.write_set(folder / f"test_data_set_{i}", inputs, outputs)
            tops.append(outputs[0].argmax())
        octet.close()
        if self.npz:
            np.savez(self.npz, inputs=np.concatenate([inputs[0] for inputs in samples]), labels=np.array(tops))

    def against(self, octet, isa, tolerance):
        """Arg-maxes that are the default's, where there are labels, and the comparisons of every sample."""
        checked = run(octet, "check", self.file, "--golden", self.golden, *tolerance, "--json", isa=isa)
        if not self.npz:
            return 100, json.loads(checked.stdout)
        same = json.loads(run(octet, "eval", self.file, "--data", self.npz, "--batch", 1, "--json", isa=isa).stdout)["top1"]
        return same, json.loads(checked.stdout)


def labelled(data, map_file):
    """The inputs of a few samples, spread over the set."""
    integers = np.load(data)["inputs"]
    samples = demo_model.mapped(integers[:: max(1, len(integers) // SAMPLES)][:SAMPLES], map_file)
    return [[samples[i : i + 1]] for i in range(len(samples))]


def golden(folder):
    """The inputs of golden sets."""
    sets = sorted(folder.glob("test_data_set_*"))
    return [[numpy_helper.to_array(onnx.load_tensor(x)) for x in sorted(one.glob("input_*.pb"))] for one in sets]


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
    parser.add_argument("--only", nargs="+", help="names of models; all of them")
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for number, (model, precision, tolerance, file, data, map_file) in enumerate(suite(options.octet, folder)):
            if options.only and model not in options.only:
                continue
            case = Case(options.answers, file, data, map_file, folder / str(number))
            for isa in ISAS:
                same, checked = case.against(options.octet, isa, tolerance)
                ok = same == 100 and checked["ok"]
                wrong += not ok
                steps = max((c.get("max_steps", 0) for c in checked["comparisons"]), default=0)
                far = max(c["max_abs"] for c in checked["comparisons"])
                more = report(options.octet, isa, case, data, map_file) if options.report and map_file else ""
                print(f"{'ok  ' if ok else 'FAIL'} {model:<18} {precision} {isa:<17} same arg-max {same:.0f} %, largest difference {far:.2g}, "
                      f"{steps:.2f} steps {more}", flush=True)  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
