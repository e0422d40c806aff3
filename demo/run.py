#!/usr/bin/env python3
"""Shows Octet at work on the bundled model; `./dev demo` starts it.

Makes the model's five precisions, serves them side by side, sends the labelled test images to each of them and through
an A/B split, and prints what each precision costs and what it changes in the answers.
"""

import argparse
import collections
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import grpc
import numpy
from client import LABELS, ROOT, TEST_SET, GlyphReader, load_stubs
from progress import Progress
from server import DEFAULT_PORTS, FREE_PORTS, Server, ServerError, default_ports, find_octet

MODEL = ROOT / "demo/models/glyphs"
CALIBRATION = ROOT / "demo/data/calibration.npz"
PRECISIONS = ["fp32", "fp16", "bf16", "int8", "int8-dynamic"]
SPLIT = {"fp32": 25, "int8": 75}
ROUTING = f"""
routing:
  default: int8
  split: {json.dumps(SPLIT)}
  sticky: {{parameter: user, salt: demo}}
"""
TIMED_ALONE = 400  # requests, one at a time, for the latency
UNDER_WAY = 16  # requests at a time, for the throughput
USERS = 200  # who ask twice
TIMEOUT_SECONDS = 30


class DemoError(Exception):
    """What stopped the demo, for its user to read."""


@dataclasses.dataclass
class Row:
    """What the table says about a precision. Latencies in seconds, shares 0 to 1."""

    precision: str
    bytes: int = 0
    weight_bytes: int = 0
    answers: list = dataclasses.field(default_factory=list)
    latencies: list = dataclasses.field(default_factory=list)
    images_per_second: float = 0
    ran: dict = dataclasses.field(default_factory=dict)
    split: float = 0


def run_octet(*words):
    """Returns what a verb prints with --json."""
    command = [find_octet(), *map(str, words), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise DemoError(f"octet {words[0]} ended with {done.returncode}")
    return json.loads(done.stdout)


def make_repository(folder):
    """Makes the five variants and their model.yaml. Returns the rows, with sizes and certificates."""
    repository = folder / "repository"
    shutil.rmtree(repository, ignore_errors=True)
    version = repository / "glyphs/1"
    version.mkdir(parents=True)
    with Progress("quantizing to four precisions"):
        shutil.copy(MODEL / "1/fp32.onnx", version)
        shutil.copy(MODEL / "labels.txt", version.parent)
        words = ["--calibration", CALIBRATION, "--map", MODEL / "model.yaml", "--threads", os.cpu_count()]
        run_octet("quantize", version / "fp32.onnx", *words, "--out", version)
    (version.parent / "model.yaml").write_text((MODEL / "model.yaml").read_text() + ROUTING)
    rows = []
    with Progress("asking what runs in which precision", len(PRECISIONS)) as progress:
        for precision in PRECISIONS:
            file = version / f"{precision}.onnx"
            rows.append(Row(precision, file.stat().st_size, ran=run_octet("inspect", file)["mac_share"]))
            progress.add()
    return repository, rows


def send_alone(reader, requests):
    """Sends one request after the other. Returns the seconds that each took."""
    seconds = []
    for request in requests:
        started = time.perf_counter()
        reader.stub.ModelInfer(request, timeout=TIMEOUT_SECONDS)
        seconds.append(time.perf_counter() - started)
    return seconds


def send_together(reader, requests, progress):
    """Keeps UNDER_WAY requests under way. Returns (class, precision) of each, in order, and the seconds for all."""
    room = threading.Semaphore(UNDER_WAY)
    futures = []
    started = time.perf_counter()
    for request in requests:
        room.acquire()
        future = reader.stub.ModelInfer.future(request, timeout=TIMEOUT_SECONDS)
        future.add_done_callback(lambda _: (room.release(), progress.add()))
        futures.append(future)
    answers = [reader.answer(future.result()) for future in futures]
    return answers, time.perf_counter() - started


def measure(reader, row, images):
    """Sends every image to one precision."""
    requests = [reader.request(image, precision=row.precision) for image in images]
    with Progress(f"{len(images)} images to {row.precision}", len(requests)) as progress:
        send_alone(reader, requests[:UNDER_WAY])  # the first ones compile and warm up
        answers, seconds = send_together(reader, requests, progress)
        row.latencies = send_alone(reader, requests[:TIMED_ALONE])
    others = {precision for _, precision in answers} - {row.precision}
    if others:
        raise DemoError(f"asked for {row.precision}, answered by {', '.join(sorted(others))}")
    row.answers = [read for read, _ in answers]
    row.images_per_second = len(images) / seconds


def measure_split(reader, rows, images):
    """Sends every image to nobody in particular, then lets users ask twice. Returns how many of them changed sides."""
    with Progress(f"{len(images)} images through the split", len(images)) as progress:
        answers, _ = send_together(reader, [reader.request(image) for image in images], progress)
    counts = collections.Counter(precision for _, precision in answers)
    for row in rows:
        row.split = counts[row.precision] / len(images)
    requests = [reader.request(images[user], user=f"user-{user}") for user in range(USERS)]
    with Progress(f"{USERS} users, twice", 2 * USERS) as progress:
        first, second = (send_together(reader, requests, progress)[0] for _ in range(2))
    return sum(before[1] != after[1] for before, after in zip(first, second, strict=True))


def scrape(server):
    """Returns Octet's own samples of the metrics endpoint as {series: value}."""
    samples = (line.rsplit(" ", 1) for line in server.metrics_page().splitlines() if not line.startswith("#"))
    return {series: float(value) for series, value in samples}


def pick(samples, name, **labels):
    """Returns the samples of one metric that have these labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return {
        series: value
        for series, value in samples.items()
        if series.partition("{")[0] == name and all(label in series for label in wanted)
    }


def read_weights(rows, samples):
    for row in rows:
        found = pick(samples, "octet_resident_weight_bytes", model="glyphs", precision=row.precision)
        if len(found) != 1:
            raise DemoError(f"the metrics should say once how much memory {row.precision} holds, not {len(found)} times")
        (row.weight_bytes,) = found.values()


def cells(row, reference, labels):
    """Returns a row of the table as texts."""
    answers = numpy.array(row.answers)
    p50, p99 = numpy.percentile(row.latencies, [50, 99])
    ran = [f"{100 * share:.1f} % {name}" for name, share in sorted(row.ran.items(), key=lambda item: -item[1])]
    return [
        row.precision,
        f"{row.bytes / 1e3:.0f} kB",
        f"{row.bytes / reference.bytes:.3f}",
        f"{row.weight_bytes / 1e3:.0f} kB",
        f"{100 * numpy.mean(answers == labels):.2f} %",
        f"{100 * numpy.mean(answers == numpy.array(reference.answers)):.2f} %",
        f"{1e3 * p50:.2f} ms",
        f"{1e3 * p99:.2f} ms",
        f"{row.images_per_second:.0f}/s",
        ", ".join(ran),
        f"{100 * row.split:.1f} %" if row.precision in SPLIT else "",
    ]


def print_table(rows, labels):
    heads = "precision,file,ratio,weights,accuracy,same as fp32,p50,p99,images,multiply-adds,split".split(",")
    table = [heads] + [cells(row, rows[0], labels) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    table.insert(1, ["-" * width for width in widths])
    print()
    for line in table:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
    print(f"""
{len(labels)} test images of {len(LABELS)} classes. p50 and p99: of {TIMED_ALONE} requests, one at a time; images: with \
{UNDER_WAY} requests under way;
both as one Python client sees them that shares {os.cpu_count()} cores with the server. multiply-adds: what they ran in.""")


def print_metrics(samples, asked):
    """Shows what the server counted. DemoError when that is not what was asked of it."""
    print("\nFrom the metrics:")
    counted = pick(samples, "octet_requests_total", code="OK")
    routed = pick(samples, "octet_routed_requests_total", precision="int8")
    batches = pick(samples, "octet_batch_rows_bucket", precision="int8")
    # Buckets are cumulative: those after the largest batch repeat its count.
    largest = next((number for number, value in enumerate(batches.values(), 1) if value == max(batches.values())), 0)
    shown = {**counted, **routed, **dict(list(batches.items())[:largest])}
    for series, value in shown.items():
        if value:
            print(f"  {series} {value:.0f}")
    if sum(counted.values()) != asked:
        raise DemoError(f"{asked} requests were sent, the metrics count {sum(counted.values()):.0f}")


def show_stay(server, ports):
    elsewhere = f" (other ports than the usual ones, of which one is taken: {', '.join(map(str, DEFAULT_PORTS.values()))})"
    print(f"""
Serving until Ctrl-C{elsewhere if ports is FREE_PORTS else ""}:
  page     http://{server.http}/
  gRPC     {server.grpc}
  health   http://{server.http}/v2/health/ready
  metrics  http://{server.metrics}/metrics
In another terminal:
  ./dev run -- python3 demo/client.py --target {server.grpc} --image 7 --precision int8
  ./dev run -- octet load --target {server.grpc} --model glyphs --data demo/data/test.npz --map demo/models/glyphs/model.yaml
""", flush=True)


def stay(server, ports):
    """Waits for Ctrl-C or SIGTERM. ServerError when the server ends by itself."""
    show_stay(server, ports)
    with contextlib.suppress(KeyboardInterrupt):
        status = server.process.wait()
        raise ServerError(f"octet serve ended with {status}:\n{server.last_words()}")


def show(folder, stays):
    """The demo from end to end."""
    with numpy.load(TEST_SET) as data:
        images, labels = data["inputs"], data["labels"]
    load_stubs()  # before there is a server to leave behind: protobuf aborts when its import is interrupted
    repository, rows = make_repository(folder)
    ports = default_ports() if stays else FREE_PORTS
    with contextlib.ExitStack() as running:
        with Progress("starting octet serve"):
            server = running.enter_context(Server(find_octet(), repository, folder, ports=ports))
        reader = GlyphReader(server.grpc)
        for row in rows:
            measure(reader, row, images)
        moved = measure_split(reader, rows, images)
        samples = scrape(server)
        read_weights(rows, samples)
        print_table(rows, labels)
        shares = ", ".join(f"{precision} {weight} %" for precision, weight in SPLIT.items())
        print(f"split: of requests that ask for no precision, by the weights {shares}; {moved} of {USERS} users that asked "
              "twice got another precision.")
        asked = len(rows) * (len(images) + UNDER_WAY + TIMED_ALONE) + len(images) + 2 * USERS
        print_metrics(samples, asked)
        if moved:
            raise DemoError("the same user must always get the same precision")
        if stays:
            stay(server, ports)
        with Progress("stopping the server"):
            server.stop()
    print(f"\nThe server ended with 0. Models, configuration and log: {folder}")


def main():
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stay", action="store_true", help="leave the server running until Ctrl-C, and say how to ask it")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/demo", help="folder for models, configuration and log")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM too stops the server on its way out
    sys.stdout.reconfigure(line_buffering=True)  # so that output and progress keep their order
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        with (options.out / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            show(options.out.resolve(), options.stay)
        return 0
    except BlockingIOError:
        problem = f"another demo runs in {options.out}: --out names another folder"
    except grpc.RpcError as error:
        problem = f"a request failed with {error.code().name}: {error.details()}"
    except (DemoError, ServerError, OSError) as error:
        problem = str(error)
    except KeyboardInterrupt:
        problem = "interrupted"
    print(f"demo: {problem}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
