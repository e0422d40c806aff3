#!/usr/bin/env python3
"""Measures what quantizing costs: `octet quantize`, its default recipe, beside ONNX Runtime's static quantizer on the same samples,
taking turns, each a process of its own; and an epoch of `octet qat`. ./dev bench quantizing

Ends with 1 when a job fails; models that are not beside the checkout are left out.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import catalog
import numpy as np
import report
import serving
import variants

JOBS = {"resnet20-cifar10": 10, "squeezenet1.1": 20}  # seconds that the default recipe may take on two cores
EPOCH_OF = "resnet20-cifar10"
EPOCH_SECONDS = 10
MB = 1 << 20


def timed(command):
    """Runs a process. Returns its seconds, the most bytes that it held, and what it printed; raises QuantizeError when it fails."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        for file in (out, err):
            file.seek(0)
        if process.returncode != 0:
            raise variants.QuantizeError((err.read().decode(errors="replace").strip().splitlines() or ["no word"])[-1])
        return seconds, usage.ru_maxrss * 1024, out.read().decode()


def data_of(model):
    return (model.calibration, *(("--map", model.map) if model.map else ()))


def octets(options, model, folder):
    words = ("--to", "int8", "--threads", options.threads, "--calibration", *data_of(model), "--out", folder / "octet")
    return timed([options.octet, "quantize", model.fp32, *words])


def peers(model, folder):
    (name, _, _), *_ = catalog.inputs_of(model.fp32)
    np.save(folder / "rows.npy", catalog.mapped(model, model.calibration))
    return timed([sys.executable, "-c", variants.PEER, model.fp32, folder / "prepared.onnx", folder / "peer.onnx", name, folder / "rows.npy"])


def quantize(options, model, folder):
    """Returns rows of `serving.table`."""
    runs = {"Octet": [], "ONNX Runtime": []}
    for _ in range(options.rounds):
        runs["Octet"].append(octets(options, model, folder))
        if options.peer:
            runs["ONNX Runtime"].append(peers(model, folder))
    with np.load(model.calibration) as arrays:
        job = f"{model.name}, {len(arrays['inputs'])} samples"
    most = JOBS.get(model.name)
    rows = []
    for side, of_side in runs.items():
        for what, unit, index, scale in (("time", "s", 0, 1), ("memory at the peak", "MB", 1, 1 / MB)):
            if of_side:
                value = statistics.median(run[index] for run in of_side) * scale
                rows.append({"part": "quantize", "what": f"{job}: {what}, {side}", "value": value, "unit": unit})
    if most:
        rows[0] |= {"goal": f"<= {most}", "met": rows[0]["value"] <= most}
    if options.peer:
        rows[1] |= {"goal": f"<= {rows[3]['value']:.4g}", "met": rows[1]["value"] <= rows[3]["value"]}
    return rows


def epoch(options, model, folder):
    words = ("--threads", options.threads, "--data", *data_of(model), "--out", folder / "trained.onnx", "--epochs", options.rounds)
    trained = json.loads(timed([options.octet, "qat", model.fp32, *words, "--json"])[2])
    value = statistics.median(row["seconds"] for row in trained["epochs"][1:])
    row = {"part": "qat", "what": f"{model.name}: an epoch", "value": value, "unit": "s"}
    return [row | {"goal": f"<= {EPOCH_SECONDS}", "met": value <= EPOCH_SECONDS}]


def parse():
    parser = argparse.ArgumentParser(prog="./dev bench quantizing", description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=lambda words: words.split(","), default=list(JOBS), help="of ./dev bench")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side, and epochs")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="without ONNX Runtime")
    parser.add_argument("--out", type=pathlib.Path, default=catalog.ROOT / "build/bench-quantizing", help="for JSON and table")
    parser.add_argument("--octet", default=shutil.which("octet"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < 1 or options.threads < 1:
        parser.error("rounds and threads are positive")
    if not options.octet:
        parser.error("there is no octet on the PATH: ./dev build")
    return options


def main():
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    rows, failures = [], 0
    models = {model.name: model for model in catalog.load()}
    for name in options.models:
        if name not in models or not models[name].calibration:
            serving.say(f"{name}: not measured, it or its calibration data are not there")
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows += quantize(options, models[name], pathlib.Path(folder))
                if name == EPOCH_OF or name not in JOBS:
                    rows += epoch(options, models[name], pathlib.Path(folder))
            except variants.QuantizeError as error:
                serving.say(f"{name}: {error}")
                failures += 1
    (options.out / "results.json").write_text(json.dumps({"machine": report.machine(), "rows": rows}, indent=1) + "\n")
    (options.out / "table.md").write_text(serving.table(rows))
    print(serving.table(rows), end="")
    return 1 if failures or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
