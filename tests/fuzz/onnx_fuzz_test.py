#!/usr/bin/env python3
"""Damaged models through reader, passes, compiler and a run, under the sanitizers.

usage: onnx_fuzz_test.py ONNX_FUZZ [--models COUNT] [--seconds S] [--seed N] [--findings FOLDER]

The sound models that are damaged are those of tests/differential: a few hundred of its seeds, the smaller ones; one with functions of
its own; one with external data, which lie in the fuzzer's weights.bin; and one whose inputs are strings and sequences.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "differential"))
import models  # noqa: E402
import onnx.parser  # noqa: E402

MODELS = 300
MOST_BYTES = 6000
FUNCTIONS = """
<ir_version: 10, opset_import: ["" : 18, "f" : 1]>
net (float[2, 3] x, bool flag) => (float[2, 3] y) { h = f.Twice <slope: float = 0.5> (x, flag) y = f.Twice (h, flag) }
<domain: "f", opset_import: ["" : 17, "f" : 1]>
Twice <slope: float = 0.1> (a, flag) => (b)
{
    c = f.Once <alpha: float = @slope> (a)
    b = If (flag) <
        then_branch = yes () => (d) { d = f.Once (c) },
        else_branch = no () => (e) { e = Add (a, c) }
    >
}
<domain: "f", opset_import: ["" : 13]>
Once <alpha> (p, q) => (r) { s = Elu <alpha: float = @alpha> (p) r = Clip (s, q) }
"""
EXTERNAL = """
<ir_version: 10, opset_import: ["" : 18]>
net (float[n, 8] x) => (float[n, 4] y) <float[8, 4] w = {%s}> { y = MatMul (x, w) }
""" % ", ".join(["0"] * 32)
INPUTS = """
<ir_version: 10, opset_import: ["" : 18]>
net (string[n] words, seq(float[2, 3]) parts, int64 at) => (string[m] found, float[a, 3] all, float[b, 3] one)
{
    found = StringNormalizer <case_change_action = "LOWER", stopwords = ["the"]> (words)
    fewer = SequenceErase (parts, at)
    all = ConcatFromSequence <axis = 0> (fewer)
    one = SequenceAt (parts, at)
}
"""


def external():
    """A product whose weights are outside."""
    model = onnx.parser.parse_model(EXTERNAL)
    for weights in model.graph.initializer:
        weights.ClearField("float_data")
        weights.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "weights.bin"), ("offset", "64"), ("length", "128")):
            weights.external_data.add(key=key, value=value)
    return model


def write_corpus(folder):
    """Writes models of at most MOST_BYTES."""
    for name, model in (("functions", onnx.parser.parse_model(FUNCTIONS)), ("external", external()), ("inputs", onnx.parser.parse_model(INPUTS))):
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    for seed in range(1, MODELS + 1):
        made = models.model(seed)
        data = made[0].SerializeToString() if made else b""
        if 0 < len(data) <= MOST_BYTES:
            (folder / f"{seed}.onnx").write_bytes(data)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("fuzzer")
    parser.add_argument("--models", type=int, default=12000)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=pathlib.Path, default=pathlib.Path("."))
    options = parser.parse_args()
    options.findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        write_corpus(pathlib.Path(name))
        words = [options.fuzzer, name, "--models", options.models, "--seconds", options.seconds]
        words += ["--seed", options.seed, "--findings", options.findings]
        return subprocess.run([str(word) for word in words], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
