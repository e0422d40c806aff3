#!/usr/bin/env python3
"""Measures what serving costs: Octet beside an empty gRPC service, taking turns, asked by `octet load` on the same machine.

Parts: identity (what Octet adds to a call), http (what a call of HTTP costs), models (how much of the machine is left to the model), tensors (throughput and
memory with FP32 on the wire), half (latency at half load), idle (connections that ask nothing), fairness (many clients of one
model). Each figure that has a goal is shown with it. Ends with 1 when a part fails; what is not
beside the checkout is left out. ./dev bench serving
"""

import argparse
import functools
import json
import math
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import catalog
import report
import serving_sides as served
import sides
import variants

# Floats of a request; microseconds that Octet may add; of processor time that a request may take with many under way, of what
# Triton Inference Server takes: 0.9 of 60 and 0.6 of 680 over gRPC, 0.9 of 52 over HTTP.
IDENTITIES = {"4 kB": (1024, 40, 54), "602 kB": (3 * 224 * 224, 100, 408)}
HTTP_CPU_US = {"4 kB": 46.8}
# Served in int8 with UINT8 on the wire: extents of the input; bytes of an answer.
SERVED = {"mobilenetv2": ((3, 224, 224), 4000), "resnet20-cifar10": ((3, 32, 32), 40)}
CONCURRENCY = 16
FAIRNESS_CLIENTS = 256
# A layer in int8 is as fast whatever its ranges are.
QUICK_RECIPE = ("--method", "min-max", "--no-equalize", "--no-compensate", "--no-correct-bias", "--all-int8")
MB = 1 << 20

# Requests per second and the least resident megabytes of another server: Triton Inference Server with ONNX Runtime, on two
# cores, with FP32 tensors on the wire. None: not measured.
TENSORS = {
    ("torchvision-resnet50", "fp32"): (26.0, 574),
    ("torchvision-resnet50", "int8"): (89.7, 282),
    ("torchvision-resnet50", "bf16"): (None, None),
    ("mobilenetv2", "fp32"): (228, 389),
    ("mobilenetv2", "int8"): (485, 222),
    ("mobilenetv2", "bf16"): (None, None),
    ("squeezenet1.1", "fp32"): (247, 290),
    ("squeezenet1.1", "int8"): (551, 204),
    ("squeezenet1.1", "bf16"): (None, None),
}


def say(words):
    print(f"bench: {words}", file=sys.stderr, flush=True)


def per_request(runs, key):
    """Returns the sum of a run's figure over all runs' requests."""
    return sum(run[key] for run in runs) / sum(run["requests"] for run in runs)


def throughput(runs):
    return sum(run["requests"] for run in runs) / sum(run["seconds"] for run in runs)


def server_cpu(runs):
    """Returns microseconds per request."""
    return 1e6 * per_request(runs, "server_cpu_seconds")


def median(runs, key):
    return statistics.median(run[key] for run in runs)


class ServingBench:
    """Measures parts into rows: {"part", "what", "value", "unit"} and, where they are, "goal" and "met"."""

    def __init__(self, options, cache, folder):
        self.options, self.cache, self.folder = options, cache, folder
        self.loader = served.Loader(options.octet, options.seconds)
        self.models = {model.name: model for model in catalog.load()}
        self.cores = len(os.sched_getaffinity(0))
        self.rows = []

    def add(self, part, what, value, unit, most=None, least=None):
        """`most`, `least`: the goal."""
        row = {"part": part, "what": what, "value": value, "unit": unit}
        if most is not None:
            row |= {"goal": f"<= {most:.4g}", "met": value <= most}
        if least is not None:
            row |= {"goal": f">= {least:.4g}", "met": value >= least}
        self.rows.append(row)

    def octet(self, name, configuration=""):
        """Serves the repository `name` of the bench's folder."""
        return served.octet(self.options.octet, self.folder / name, self.folder / f"{name}-server", configuration)

    def file(self, name, precision):
        """Returns a model's file of a precision; raises NotMeasured where there is none."""
        if name not in self.models:
            raise catalog.NotMeasured(f"{name} is not beside the checkout")
        model = self.models[name]
        catalog.write(model, self.cache)
        if precision != "int8":
            return model.fp32
        return model.int8 or variants.by_octet(self.options.octet, model, precision, self.cache, QUICK_RECIPE)

    def identity(self):
        """What Octet adds to a call of gRPC, and to its processor time."""
        models = {}
        for number, (elements, *_) in enumerate(IDENTITIES.values()):
            served.write_identity(self.folder / f"identity/size{number}/1/fp32.onnx", elements)
            models[f"size{number}"] = ("FP32", (elements,), 4 * elements)
        with self.octet("identity") as octet, served.empty(self.options.empty_server, models) as empty:
            for model, (size, (_, added_us, cpu_us)) in zip(models, IDENTITIES.items(), strict=True):
                asks = [(side, model, "--concurrency", n) for n in (1, CONCURRENCY) for side in (empty, octet)]
                for ask in asks:
                    self.loader.ask(*ask)  # a warm-up
                alone_empty, alone_octet, busy_empty, busy_octet = self.loader.take_turns(self.options.rounds, asks)
                pairs = zip(alone_octet, alone_empty, strict=True)
                added = statistics.median(ours["p50_us"] - theirs["p50_us"] for ours, theirs in pairs)
                self.add("identity", f"{size}: p50 of the empty service, 1 client", median(alone_empty, "p50_us"), "us")
                self.add("identity", f"{size}: p50 of Octet, 1 client", median(alone_octet, "p50_us"), "us")
                self.add("identity", f"{size}: what Octet adds", added, "us", most=added_us)
                ours, theirs = server_cpu(busy_octet), server_cpu(busy_empty)
                self.add("identity", f"{size}: processor time of the empty service, {CONCURRENCY} clients", theirs, "us")
                self.add("identity", f"{size}: processor time of Octet, {CONCURRENCY} clients", ours, "us", most=cpu_us)
                goal = {"most": 1.5} if size == "4 kB" else {}
                self.add("identity", f"{size}: Octet's over the empty service's", ours / theirs, "", **goal)
                self.add("identity", f"{size}: answers of the empty service", throughput(busy_empty), "1/s")
                self.add("identity", f"{size}: answers of Octet", throughput(busy_octet), "1/s")

    def http(self):
        """What a request of an identity model costs over HTTP."""
        for number, (elements, *_) in enumerate(IDENTITIES.values()):
            served.write_identity(self.folder / f"http/size{number}/1/fp32.onnx", elements)
        seconds = math.ceil(self.options.seconds)  # wrk has whole ones
        with self.octet("http") as octet:
            for number, (size, (elements, *_)) in enumerate(IDENTITIES.items()):
                for clients in (1, CONCURRENCY):
                    ask = functools.partial(served.ask_http, octet, f"size{number}", elements, clients)
                    ask(1)  # a warm-up
                    runs = [ask(seconds) for _ in range(self.options.rounds)]
                    self.add("http", f"{size}: p50, {clients} client{'s' * (clients > 1)}", median(runs, "p50_us"), "us")
                self.add("http", f"{size}: processor time, {CONCURRENCY} clients", server_cpu(runs), "us", most=HTTP_CPU_US.get(size))
                self.add("http", f"{size}: answers, {CONCURRENCY} clients", throughput(runs), "1/s")

    def serve_models(self, repository, names):
        """Makes a repository of the models' int8 files, as clients with UINT8 see them."""
        for name in names:
            model = self.models.get(name)
            file = self.file(name, "int8")
            served.add_model(self.folder / repository, name, {"int8": file}, model.map)

    def models_part(self):
        """How much of the machine is the model's, when client and gRPC have had their share."""
        self.serve_models("models", SERVED)
        with self.octet("models") as octet:
            for name, (dims, answer) in SERVED.items():
                data = ("--concurrency", CONCURRENCY, "--data", self.models[name].data)
                self.loader.ask(octet, name, *data, seconds=0.5)  # a warm-up: plans are compiled per batch
                floor = ("UINT8", dims, answer)
                self.shares(name, floor, lambda side, name=name, data=data: self.loader.ask(side, name, *data), octet)

    def shares(self, name, floor, ask, octet):
        """Adds where the time of a model's requests goes. The best that a server could do is to keep every core busy with
        client, gRPC and the model alone, which each round measures anew: gRPC's time by an empty service whose requests cost
        what the model's row costs, for that time depends on how often requests come and on how busy the cores are."""
        rounds = []
        with served.Compute(self.options.octet, self.batches(name), self.cores) as compute:
            for _ in range(self.options.rounds):
                row = round(1e6 * compute.row_seconds(self.options.seconds / 4))
                with served.empty(self.options.empty_server, {name: (*floor, row)}) as empty:
                    of_empty = ask(empty)
                of_octet = ask(octet)
                times = {
                    "of the client": of_octet["client_cpu_us_per_request"],
                    "of gRPC, by the empty service": server_cpu([of_empty]) - row,
                    "of the model, without a server": row,
                }
                share = of_octet["throughput"] * sum(times.values()) / 1e6 / self.cores
                figures = {"of Octet": server_cpu([of_octet]), "answers": of_octet["throughput"], "share": share}
                rounds.append({**times, **figures, "empty": of_empty["throughput"]})
        for key in [key for key in rounds[0] if key.startswith("of ")]:
            self.add("models", f"{name} int8: time {key}", median(rounds, key), "us")
        self.add("models", f"{name} int8: answers", median(rounds, "answers"), "1/s")
        self.add("models", f"{name} int8: answers of the empty service", median(rounds, "empty"), "1/s")
        self.add("models", f"{name} int8: of what client and gRPC leave", 100 * median(rounds, "share"), "%", least=92)

    def batches(self, name):
        """Returns {batch: (file, arrays)} of one row and of eight at once."""
        model, file = self.models[name], self.file(name, "int8")
        made = {batch: catalog.for_batch(file, batch, self.cache) for batch in (1, 8)}
        return {batch: (file, catalog.feed(model, file, batch)) for batch, file in made.items()}

    def tensors(self):
        """Throughput and memory of one model per server, FP32 on the wire."""
        for (name, precision), (theirs, their_memory) in TENSORS.items():
            repository = f"{name}-{precision}"
            try:
                served.add_model(self.folder / repository, name, {precision: self.file(name, precision)})
            except (catalog.NotMeasured, variants.QuantizeError) as reason:
                say(f"{name} {precision}: not measured, {reason}")
                continue
            with self.octet(repository) as octet:
                ask = (octet, name, "--concurrency", CONCURRENCY)
                self.loader.ask(*ask, seconds=1)  # a warm-up
                run = self.loader.ask(*ask, seconds=max(2, 2 * self.options.seconds))
                self.add("tensors", f"{name} {precision}: answers", run["throughput"], "1/s", least=theirs)
                self.add("tensors", f"{name} {precision}: resident", octet.resident_bytes() / MB, "MB", most=their_memory)
            shutil.rmtree(self.folder / repository)

    def half(self):
        """Latency when half of what the server can do is asked, by chance. Beside it, as often, the empty service with the
        model's time: what shares the cores with them makes both late."""
        elements, *_ = IDENTITIES["4 kB"]
        served.write_identity(self.folder / "half/identity/1/fp32.onnx", elements)
        self.serve_models("half", SERVED)
        with self.octet("half") as octet:
            self.at_half_load(octet, "identity", "identity, 4 kB", ("FP32", (elements,), 4 * elements))
            for name, (dims, answer) in SERVED.items():
                with served.Compute(self.options.octet, self.batches(name), self.cores) as compute:
                    row = round(1e6 * compute.row_seconds(self.options.seconds / 4))
                floor = ("UINT8", dims, answer, row)
                self.at_half_load(octet, name, f"{name} int8", floor, "--data", self.models[name].data)

    def at_half_load(self, octet, model, what, floor, *data):
        most = (octet, model, "--concurrency", CONCURRENCY, *data)
        self.loader.ask(*most, seconds=0.5)  # a warm-up
        rate = f"{self.loader.ask(*most)['throughput'] / 2:.1f}"
        with served.empty(self.options.empty_server, {model: floor}) as empty:
            asks = [(side, model, "--rate", rate, *data) for side in (empty, octet)]
            of_empty, of_octet = self.loader.take_turns(self.options.rounds, asks, seconds=2 * self.options.seconds)
        self.add("half", f"{what}: asked", median(of_octet, "asked_rate"), "1/s")
        p50 = median(of_octet, "p50_us") / 1e3
        self.add("half", f"{what}: p50 of the empty service", median(of_empty, "p50_us") / 1e3, "ms")
        self.add("half", f"{what}: p50 of Octet", p50, "ms")
        self.add("half", f"{what}: p99 of the empty service", median(of_empty, "p99_us") / 1e3, "ms")
        self.add("half", f"{what}: p99 of Octet", median(of_octet, "p99_us") / 1e3, "ms", most=2 * p50 + 1)
        for warning in dict.fromkeys(warning for run in of_octet for warning in run["warnings"]):
            say(warning)

    def idle(self):
        """What connections cost that ask nothing."""
        served.write_identity(self.folder / "idle/small/1/fp32.onnx", IDENTITIES["4 kB"][0])
        count = self.options.idle_connections
        with self.octet("idle") as octet:
            self.loader.ask(octet, "small", seconds=0.2)  # a warm-up
            before = [self.loader.ask(octet, "small") for _ in range(self.options.rounds)]
            memory = octet.resident_bytes()
            with served.IdleConnections(octet.target, count) as connections:
                alive = connections.open()
                if alive != count:
                    raise served.LoadError(f"of {count} idle connections {alive} are open")
                memory = octet.resident_bytes() - memory
                beside = [self.loader.ask(octet, "small") for _ in range(self.options.rounds)]
        self.add("idle", f"memory of each of {count} connections", memory / count / 1024, "kB")
        self.add("idle", "p50 without them", median(before, "p50_us"), "us")
        self.add("idle", "p50 beside them", median(beside, "p50_us"), "us")
        self.add("idle", "p99 without them", median(before, "p99_us"), "us")
        self.add("idle", "p99 beside them", median(beside, "p99_us"), "us")

    def fairness(self):
        """Whether each of many clients of one model, all asking at once, gets its share."""
        served.write_identity(self.folder / "fairness/small/1/fp32.onnx", IDENTITIES["4 kB"][0])
        with self.octet("fairness", f"batching: {{max_queue_requests: {2 * FAIRNESS_CLIENTS}}}\n") as octet:
            clients = ("--concurrency", FAIRNESS_CLIENTS, "--connections", FAIRNESS_CLIENTS)
            run = self.loader.ask(octet, "small", *clients, seconds=max(2, 2 * self.options.seconds))
        least, most = (run["requests_per_connection"][key] for key in ("min", "max"))
        self.add("fairness", f"least requests of one of {FAIRNESS_CLIENTS} clients", least, "")
        self.add("fairness", "most", most, "")
        self.add("fairness", "p99", run["p99_us"] / 1e3, "ms")


# The other parts are measured all the same.
FAILURES = (
    served.LoadError,
    served.server.ServerError,
    sides.SideError,
    variants.QuantizeError,
    subprocess.SubprocessError,
    OSError,
)

PARTS = {
    "identity": ServingBench.identity,
    "http": ServingBench.http,
    "models": ServingBench.models_part,
    "tensors": ServingBench.tensors,
    "half": ServingBench.half,
    "idle": ServingBench.idle,
    "fairness": ServingBench.fairness,
}


def table(rows):
    """Returns the rows as Markdown."""
    lines = ["| part | what | value | | goal | |", "|---|---|---|---|---|---|"]
    for row in rows:
        met = {True: "met", False: "missed"}.get(row.get("met"), "")
        value = f"{row['value']:.4g}" if abs(row["value"]) < 1000 else f"{row['value']:.0f}"
        lines.append(f"| {row['part']} | {row['what']} | {value} | {row['unit']} | {row.get('goal', '')} | {met} |")
    return "\n".join(lines) + "\n"


def parse():
    octet = shutil.which("octet")
    parser = argparse.ArgumentParser(prog="./dev bench serving", description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", type=lambda words: words.split(","), default=list(PARTS), help="of " + ",".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--seconds", type=float, default=1, help="length of a turn")
    parser.add_argument("--idle-connections", type=int, default=10000)
    parser.add_argument("--out", type=pathlib.Path, default=catalog.ROOT / "build/bench-serving", help="for JSON and table")
    parser.add_argument("--octet", default=octet, help=argparse.SUPPRESS)
    parser.add_argument("--empty-server", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    if min(options.rounds, options.idle_connections) < 1 or options.seconds <= 0:
        parser.error("rounds, seconds and connections are positive")
    if not options.octet:
        parser.error("there is no octet on the PATH: ./dev build")
    options.empty_server = options.empty_server or pathlib.Path(options.octet).parent / "tests/bench/bench_empty_server"
    return options


def main():
    options = parse()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the idle connections
    cache = pathlib.Path(os.environ.get("OCTET_CACHE") or catalog.ROOT / "build", "bench")
    cache.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = ServingBench(options, cache, pathlib.Path(folder))
        for part in options.parts:
            started = time.monotonic()
            try:
                PARTS[part](bench)
            except catalog.NotMeasured as reason:
                say(f"{part}: not measured, {reason}")
                continue
            except FAILURES as error:
                say(f"{part}: {error}")
                failures += 1
            say(f"{part}: {time.monotonic() - started:.1f} s")
    result = {"machine": report.machine(), "cores": bench.cores, "rows": bench.rows}
    (options.out / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "table.md").write_text(table(bench.rows))
    print(table(bench.rows), end="")
    return 1 if failures or not bench.rows else 0


if __name__ == "__main__":
    sys.exit(main())
