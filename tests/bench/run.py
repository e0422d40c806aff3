#!/usr/bin/env python3
"""Measures Octet beside ONNX Runtime, the two taking turns in short rounds, so that a noisy machine hurts both alike.

Both hold the same model, inputs and number of threads. Their answers are compared with the fp32 answer: one that is too
far away makes this end with 1, as does a model that Octet cannot run. Needs ./dev's platform: ./dev bench.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import catalog
import peak
import peer_library
import report
import rounds
import sides
import variants

PRECISIONS = ("fp32", "bf16", "int8", "int8-dynamic")
SETTLE_SECONDS = 0.1  # longer than an idle thread of either side spins


def say(words):
    print(f"bench: {words}", file=sys.stderr, flush=True)


def parse():
    def listed(kind):
        return lambda words: [kind(word) for word in words.split(",")]

    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=listed(str), default=["*"], help="names or shell patterns, separated by commas")
    parser.add_argument("--precisions", type=listed(str), default=list(PRECISIONS), help="of " + ",".join(PRECISIONS))
    parser.add_argument("--batch", type=listed(int), default=[1])
    parser.add_argument("--threads", type=listed(int), default=[1])
    parser.add_argument("--rounds", type=int, default=9, help="turns of each side")
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a turn, after a warm-up of three runs")
    parser.add_argument("--out", type=pathlib.Path, default=catalog.ROOT / "build/bench", help="for JSON, table and plot")
    parser.add_argument("--keep", action="store_true", help="keep the rows of --out that are not measured again")
    parser.add_argument("--peer", choices=["npm", "debian", "none"], default="npm", help="where ONNX Runtime comes from")
    parser.add_argument("--octet", default=shutil.which("octet"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = set(arguments.precisions) - set(PRECISIONS)
    if unknown:
        parser.error(f"unknown precisions {', '.join(sorted(unknown))}: there are {', '.join(PRECISIONS)}")
    if min(arguments.rounds, *arguments.batch, *arguments.threads) < 1 or arguments.seconds <= 0:
        parser.error("rounds, seconds, batches and threads are positive")
    if not arguments.octet:
        parser.error("there is no octet on the PATH: ./dev build")
    return arguments


class Bench:
    """Measures one configuration after the other into rows."""

    def __init__(self, arguments, cache):
        self.options, self.cache = arguments, cache
        self.peer = peer_library.find(arguments.peer, cache, say)
        self.peer_version = None
        self.folder = tempfile.TemporaryDirectory()
        self.references = {}  # (model, batch): the fp32 answer
        self.peaks = {}  # (threads, what is computed in): the most multiply-adds per second

    def start_octet(self, file, arrays, threads, precision=None):
        return sides.octet(self.options.octet, file, arrays, threads, self.folder.name, precision)

    def start_peer(self, file, arrays, threads):
        side = sides.peer(*self.peer, file, arrays, threads, self.folder.name)
        self.peer_version = side.version
        return side

    def files(self, model, precision):
        """Yields (label, Octet's file, the peer's file or why it has none)."""
        if precision not in variants.MADE:
            if model.fp32:
                yield precision, model.fp32, model.fp32
            return
        if precision == "int8" and model.int8:
            yield "int8 as shipped", model.int8, model.int8
        if model.fp32 and (model.calibration or precision == "int8-dynamic"):
            theirs = None
            if self.peer:
                try:
                    theirs = variants.by_peer(model, precision, self.cache)
                except variants.QuantizeError as error:
                    theirs = f"its quantizer fails: {error}"
            recipe = variants.RECIPE_OF_RANDOM_WEIGHTS if model.random_weights and precision == "int8" else ()
            yield precision, variants.by_octet(self.options.octet, model, precision, self.cache, recipe), theirs

    def reference(self, model, batch, arrays):
        """Returns the fp32 answer, the peer's where there is one; None for a model that has no fp32 file."""
        key = model.name, batch
        if key not in self.references and model.fp32:
            start = self.start_peer if self.peer else self.start_octet
            with start(catalog.for_batch(model.fp32, batch, self.cache), arrays, 1) as side:
                self.references[key] = side.answers
        return self.references.get(key)

    def measure(self, model, label, files, batch, threads):
        """Returns the row of one configuration."""
        ours, theirs = (
            catalog.for_batch(file, batch, self.cache) if isinstance(file, pathlib.Path) else file for file in files
        )
        row = {"model": model.name, "precision": label, "batch": batch, "threads": threads}
        row["random_weights"] = model.random_weights
        if isinstance(theirs, str):
            row["note"] = theirs
        arrays = catalog.feed(model, ours, batch)
        running = {}
        try:
            running["octet"] = self.start_octet(ours, arrays, threads, "bf16" if label == "bf16" else None)
            if self.peer and isinstance(theirs, pathlib.Path):
                running["peer"] = self.start_peer(theirs, arrays, threads)
            if label != "fp32" and model.fp32:
                fp32 = catalog.for_batch(model.fp32, batch, self.cache)
                running["octet fp32"] = self.start_octet(fp32, catalog.feed(model, fp32, batch), threads)
            settle = SETTLE_SECONDS if threads > 1 else 0
            sides.take_turns(running.values(), self.options.rounds, self.options.seconds, settle)
            self.fill(row, running, self.reference(model, batch, arrays))
        finally:
            for side in running.values():
                side.close()
        return row

    def fill(self, row, running, reference):
        """Writes what the sides measured into the row."""
        for name, side in running.items():
            row[name] = {**rounds.summarize(side.rounds), "ready_ms": side.ready_ms, "peak_bytes": side.peak_bytes}
        octet = running["octet"].rounds
        sums = [line["primitive_sum_ms"] for line in octet]
        row["primitive_sum_ms"] = min(sums)
        row["whole_to_primitives"] = row["octet"]["min_ms"] / min(sums) if min(sums) else None
        in_place = [line["primitives_in_place_ms"] for line in octet]
        row["whole_to_primitives_in_place"] = row["octet"]["min_ms"] / min(in_place) if min(in_place) else None
        row["memory"] = {key: octet[0][key] for key in ("weights_bytes", "arena_bytes", "live_peak_bytes")}
        row["macs_per_second"] = octet[0]["macs"] / (row["octet"]["min_ms"] / 1e3)
        row["peak_macs_per_second"] = self.peak(row["precision"], row["threads"])
        if "octet fp32" in running:
            row["fp32_ratio"] = rounds.compare(octet, running["octet fp32"].rounds)
        if "peer" in running:
            row["ratio"] = rounds.compare(octet, running["peer"].rounds)
            reference = reference or running["peer"].answers
        if reference:
            compared = {
                name: rounds.agreement(running[name].answers, reference) for name in ("octet", "peer") if name in running
            }
            row["cosine"] = {name: cosine for name, (cosine, _) in compared.items()}
            row["relative_distance"] = {name: distance for name, (_, distance) in compared.items()}

    def peak(self, precision, threads):
        """Returns the most multiply-adds per second that a layer reaches in what the precision computes in."""
        kind = precision.partition(" ")[0].partition("-")[0]
        if (threads, kind) not in self.peaks:
            start = lambda file, arrays, kind: self.start_octet(file, arrays, threads, kind)
            self.peaks[threads, kind] = peak.measure(start, self.cache, self.options.rounds, self.options.seconds, kind)
        return self.peaks[threads, kind]

    def rows(self, models):
        """Yields every row, one that could not be measured with its error."""
        for threads in self.options.threads:
            for batch in self.options.batch:
                for precision in self.options.precisions:
                    for model in models:
                        yield from self.rows_of(model, precision, batch, threads)

    def rows_of(self, model, precision, batch, threads):
        place = {"model": model.name, "precision": precision, "batch": batch, "threads": threads}
        try:
            catalog.write(model, self.cache)
            for label, *files in self.files(model, precision):
                place["precision"] = label
                yield self.measure(model, label, files, batch, threads)
        except catalog.NotMeasured as reason:
            say(f"{model.name}, {place['precision']}, batch {batch}: not measured, {reason}")
        except (sides.SideError, variants.QuantizeError, ValueError) as error:
            yield {**place, "error": str(error)}


def kept(folder, version):
    """Returns the rows of an earlier run by what they measure."""
    file = folder / "results.json"
    if not file.is_file():
        return {}
    earlier = json.loads(file.read_text())
    if earlier["octet"] != version or earlier["machine"] != report.machine():
        say(f"the rows of {file} are of another version or machine and are not kept")
        return {}
    return {place(row): row for row in earlier["rows"]}


def place(row):
    return tuple(row[key] for key in ("model", "precision", "batch", "threads"))


def order(row):
    return row["threads"], row["batch"], list(report.LEAST_COSINE).index(row["precision"])


def main():
    arguments = parse()
    cache = pathlib.Path(os.environ.get("OCTET_CACHE") or catalog.ROOT / "build", "bench")
    cache.mkdir(parents=True, exist_ok=True)
    try:
        models = catalog.select(catalog.load(), arguments.models)
    except ValueError as error:
        sys.exit(f"bench: {error}")
    version = subprocess.run([arguments.octet, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    rows = kept(arguments.out, version) if arguments.keep else {}
    bench = Bench(arguments, cache)
    measured = []
    for row in bench.rows(models):
        measured.append(row)
        rows[place(row)] = row
        ratio = f"{row['ratio']['median']:.2f}" if "ratio" in row else row.get("error", "")
        say(f"{row['model']}, {row['precision']}, batch {row['batch']}, threads {row['threads']}: {ratio}")
        result = {"machine": report.machine(), "octet": version, "peer": bench.peer_version}
        report.write({**result, "rows": sorted(rows.values(), key=order)}, arguments.out)
    if not measured:
        sys.exit("bench: nothing of this can be measured")
    print((arguments.out / "table.md").read_text())
    bad = [row["model"] for row in measured if "error" in row or report.is_wrong(row)]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
