#!/usr/bin/env python3
"""Puts load on a served demo model with `octet load`, and holds what it says to what the server has counted.

usage: load_test.py OCTET
"""

import json
import os
import pathlib
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

import octet_process
import onnx
from onnx import TensorProto, helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "demo"))
import server  # noqa: E402

GLYPHS = ROOT / "demo/models/glyphs"
TEST_SET = ROOT / "demo/data/test.npz"
OCTET = ""
served = None
folder = None


def write_fixed(path):
    """Writes y = Relu(x), x float [1, 4]: a model that takes one row at a time."""
    path.parent.mkdir(parents=True)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "fixed", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def write_bytes(path):
    """Writes y = the largest of x, x uint8 [n, 7 * 2^20]."""
    path.parent.mkdir(parents=True)
    ends = [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 7 << 20]), helper.make_tensor_value_info("y", TensorProto.UINT8, ["n", 1])]
    graph = helper.make_graph([helper.make_node("ReduceMax", ["x"], ["y"], axes=[1])], "bytes", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def setUpModule():
    """Serves glyphs (fp32 and bf16, the same file), twin, a second model, fixed, which takes one row, and bytes."""
    global served, folder
    temporary = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(temporary.cleanup)
    folder = pathlib.Path(temporary.name)
    for name in ("glyphs", "twin"):
        shutil.copytree(GLYPHS, folder / "models" / name)
        settings = folder / "models" / name / "model.yaml"
        settings.write_text(settings.read_text().replace("name: glyphs", f"name: {name}"))
    shutil.copy(GLYPHS / "1/fp32.onnx", folder / "models/glyphs/1/bf16.onnx")
    write_fixed(folder / "models/fixed/1/fp32.onnx")
    write_bytes(folder / "models/bytes/1/fp32.onnx")
    served = server.Server(OCTET, folder / "models", folder)
    unittest.addModuleCleanup(served.__exit__, None, None, None)


def run(*words, **options):
    command = [OCTET, "load", "--target", served.grpc, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def load(*words):
    """Returns the runs that --json prints."""
    done = run(*words, "--json")
    if done.returncode != 0:
        raise AssertionError(f"octet load ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def answered():
    """Returns what the server has answered with OK: {(model, precision): requests}."""
    counts = {}
    for labels, count in re.findall(r'^octet_requests_total\{(.*)\} (\d+)$', served.metrics_page(), re.MULTILINE):
        label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if label["code"] == "OK":
            counts[label["model"], label["precision"]] = int(count)
    return counts


def since(before):
    return {who: count - before.get(who, 0) for who, count in answered().items() if count != before.get(who, 0)}


def by_series(row):
    counts = {}
    for series in row["series"]:
        who = series["model"], series["precision"]
        counts[who] = counts.get(who, 0) + series["count"]
    return counts


def read_terminal(leader, last=None):
    """Returns what a terminal is told up to these words, or to its end."""
    said = b""
    try:
        while (last is None or last not in said) and (more := os.read(leader, 4096)):
            said += more
    except OSError:  # how the other end of a terminal is told to be closed
        pass
    return said


class ClosedLoopTest(unittest.TestCase):
    def test_the_server_has_counted_what_load_counts(self):
        before = answered()
        rows = load("--model", "glyphs@fp32", "--model", "glyphs@bf16=2", "--model", "twin", "--concurrency", "1,6", "--seconds", 0.5)
        self.assertEqual([row["concurrency"] for row in rows], [1, 6])
        told = {}
        for row in rows:
            self.assertEqual((row["errors"], row["errors_by_code"]), (0, {}))
            self.assertEqual(sum(by_series(row).values()), row["requests"])
            self.assertLessEqual(row["p50_us"], row["p99_us"])
            self.assertLessEqual(row["p99_us"], row["max_us"])
            self.assertGreater(row["client_cpu_us_per_request"], 0)
            for who, count in by_series(row).items():
                told[who] = told.get(who, 0) + count
        self.assertEqual(told, since(before))
        self.assertEqual(set(told), {("glyphs", "fp32"), ("glyphs", "bf16"), ("twin", "fp32")})

    def test_connections_share_the_requests(self):
        (row,) = load("--model", "glyphs", "--concurrency", 8, "--connections", 4, "--seconds", 0.5)
        self.assertGreater(row["requests_per_connection"]["min"], 0)
        self.assertLessEqual(4 * row["requests_per_connection"]["min"], row["requests"])
        self.assertGreaterEqual(4 * row["requests_per_connection"]["max"], row["requests"])

    def test_errors_are_counted_by_code(self):
        (row,) = load("--model", "glyphs@int8", "--model", "glyphs@fp32", "--seconds", 0.3)
        (error,) = row["errors_by_code"]
        self.assertTrue(error.startswith("5: "), error)
        self.assertEqual(row["errors_by_code"][error], row["errors"])
        self.assertEqual(set(by_series(row)), {("glyphs", "fp32")})
        self.assertEqual(row["requests"], row["errors"] + row["series"][0]["count"])


    def test_a_run_that_is_answered_nothing_is_a_failure(self):
        done = run("--model", "glyphs@int8", "--concurrency", "1,2", "--seconds", 0.2, "--json")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^octet: run 1 of 2: none of \d+ requests was answered, \d+ of them with 5: ")
        rows = json.loads(done.stdout)
        self.assertEqual([row["concurrency"] for row in rows], [1, 2])
        for row in rows:
            self.assertEqual((row["errors"], row["throughput"]), (row["requests"], 0))


class OpenLoopTest(unittest.TestCase):
    def test_constant_arrivals_are_as_many_as_asked(self):
        before = answered()
        (row,) = load("--model", "glyphs@fp32", "--rate", 200, "--arrivals", "constant", "--seconds", 1)
        self.assertEqual(row["requests"], 200)
        self.assertEqual(row["asked_rate"], 200)
        self.assertEqual(row["asked"]["arrivals"], "constant")
        self.assertEqual(since(before), {("glyphs", "fp32"): 200})
        self.assertGreaterEqual(row["seconds"], 1)
        self.assertLess(row["seconds"], 5)

    def test_a_ramp_and_a_rate_are_a_run_each(self):
        rows = load("--model", "glyphs", "--rate", "0:400:1s,100", "--arrivals", "constant", "--seconds", 0.5)
        self.assertEqual([row["requests"] for row in rows], [200, 50])
        self.assertEqual((rows[0]["asked"]["from"], rows[0]["asked"]["to"], rows[0]["asked"]["seconds"]), (0, 400, 1))

    def test_a_seed_means_the_same_requests(self):
        words = ("--model", "glyphs=3", "--model", "twin", "--rate", 300, "--seconds", 1)
        first, again, other = (load(*words, "--seed", seed)[0] for seed in (4, 4, 5))
        self.assertEqual(by_series(first), by_series(again))
        self.assertNotEqual(by_series(first), by_series(other))
        self.assertEqual(first["asked"]["arrivals"], "poisson")
        share = by_series(first)["glyphs", "fp32"] / first["requests"]
        self.assertAlmostEqual(share, 0.75, delta=0.1)

    def test_latency_counts_from_when_a_request_was_to_be_sent(self):
        # One at a time cannot keep up with this: the last request waits for all before it.
        (row,) = load("--model", "glyphs", "--rate", 50000, "--max-in-flight", 1, "--seconds", 0.2, "--arrivals", "constant")
        self.assertEqual(row["requests"], 10000)
        self.assertGreater(row["held_back"], 5000)
        self.assertIn("held back", row["warnings"][0])
        behind = 1e6 * (row["seconds"] - 0.2)
        self.assertGreater(row["max_us"], 0.9 * behind)
        self.assertGreater(row["p50_us"], 0.2 * behind)
        self.assertLess(row["achieved_rate"], row["asked_rate"])


class OutputTest(unittest.TestCase):
    def test_elements_of_a_byte_are_drawn_in_bytes(self):
        words = ("load", "--target", served.grpc, "--model", "bytes", "--seconds", "0.1", "--json")
        peaks = {rows: octet_process.peak_of(*words, "--rows", rows)[1] for rows in (1, 8)}
        # The request, and what gRPC makes of it to send. As reals the elements alone are four times as much.
        self.assertLess(peaks[8] - peaks[1], 3.5 * 7 * 7 * 1024)

    def test_files(self):
        svg, table = folder / "load.svg", folder / "load.json"
        done = run("--model", "glyphs@fp32", "--model", "glyphs@bf16", "--concurrency", "2,4", "--seconds", 0.3, "--svg", svg, "--json", table)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"(?m)^4 at once +\d+\.\d")
        self.assertRegex(done.stdout, r"(?m)^  glyphs bf16 +\d+\.\d")
        self.assertEqual([row["concurrency"] for row in json.loads(table.read_text())], [2, 4])
        texts = [node.text for node in xml.etree.ElementTree.parse(svg).iter("{http://www.w3.org/2000/svg}text")]
        for label in ("glyphs fp32, 2 at once", "glyphs bf16, 4 at once", "50 %", "90 %"):
            self.assertIn(label, texts)

    def test_runs_before_one_that_finds_no_server_are_reported(self):
        with tempfile.TemporaryDirectory() as other, server.Server(OCTET, folder / "models", other) as dying:
            command = [OCTET, "load", "--target", dying.grpc, "--model", "glyphs", "--concurrency", "1,2,4", "--seconds", "2", "--json"]
            leader, terminal = pty.openpty()
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True) as process:
                os.close(terminal)
                errors = read_terminal(leader, b"run 2 of 3")
                dying.process.kill()
                errors += read_terminal(leader)
                out = process.stdout.read()
            os.close(leader)
        self.assertEqual(process.returncode, 1)
        self.assertIn(dying.grpc, errors.decode())
        rows = json.loads(out)
        self.assertEqual([row["concurrency"] for row in rows], [1, 2])
        self.assertGreater(rows[0]["requests"], 0)

    def interrupted(self, words, shown, before=lambda: None):
        """Sends SIGINT once the terminal shows that and before() is done; returns the exit code, what was printed and what the
        terminal showed."""
        leader, terminal = pty.openpty()
        command = [OCTET, "load", "--target", served.grpc, "--model", "glyphs", *words, "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True) as process:
            os.close(terminal)
            said = read_terminal(leader, shown.encode())
            before()
            process.send_signal(signal.SIGINT)
            said += read_terminal(leader)
            out = process.stdout.read()
        os.close(leader)
        return process.returncode, out, said.decode()

    def test_runs_before_one_that_is_interrupted_are_reported(self):
        code, out, said = self.interrupted(("--concurrency", "1,2,4", "--seconds", "2"), "run 2 of 3")
        self.assertEqual(code, 1)
        self.assertIn("run 2 of 3: the load was stopped", said)
        (row,) = json.loads(out)
        self.assertEqual(row["concurrency"], 1)
        self.assertGreater(row["requests"], 0)

    def test_an_interrupt_waits_for_no_arrival(self):
        began = time.monotonic()
        code, out, said = self.interrupted(("--rate", "0.01", "--seconds", "300"), "run 1 of 1")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("run 1 of 1: the load was stopped", said)
        self.assertLess(time.monotonic() - began, 30)

    def test_an_interrupt_waits_for_no_answer(self):
        def hang():
            served.process.send_signal(signal.SIGSTOP)
            time.sleep(0.5)  # Then every place is taken by a request that nobody answers.

        for loop in (("--concurrency", "2"), ("--rate", "100", "--max-in-flight", "1")):
            began = time.monotonic()
            words = (*loop, "--seconds", "300", "--timeout-seconds", "100")
            with self.subTest(loop):
                try:
                    code, out, said = self.interrupted(words, "run 1 of 1", hang)
                finally:
                    served.process.send_signal(signal.SIGCONT)
                self.assertEqual((code, out), (1, ""))
                self.assertIn("run 1 of 1: the load was stopped", said)
                self.assertLess(time.monotonic() - began, 60)

    def test_files_that_cannot_be_written_are_told_before_the_runs(self):
        taken, pipe = folder / "taken.json", folder / "pipe"
        os.mkfifo(pipe)
        for words, text in (
            (("--svg", folder / "none/load.svg"), "none/load.svg"),
            (("--json", folder / "none/load.json"), "none/load.json"),
            (("--json", folder), "it is a folder"),
            (("--json", pipe), "it is a device or a pipe"),
            (("--svg", pipe), "it is a device or a pipe"),
            (("--json", taken, "--svg", taken), "it would replace"),
            (("--data", TEST_SET, "--svg", TEST_SET), "it would replace"),
        ):
            began = time.monotonic()
            done = run("--model", "glyphs", "--seconds", 30, *words)
            self.assertEqual((done.returncode, done.stdout), (1, ""), words)
            self.assertIn(text, done.stderr)
            self.assertLess(time.monotonic() - began, 20)
        self.assertFalse(taken.exists())
        self.assertTrue(pipe.is_fifo())
        link = folder / "stdout"
        link.symlink_to("/proc/self/fd/1")
        command = [OCTET, "load", "--target", served.grpc, "--model", "glyphs", "--json", link]
        with open(folder / "out.txt", "w", encoding="utf-8") as out:
            done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("it is a device or a pipe", done.stderr)
        self.assertTrue(link.is_symlink())

    def test_a_terminal_shows_what_goes_on(self):
        leader, terminal = pty.openpty()
        command = [OCTET, "load", "--target", served.grpc, "--model", "glyphs", "--seconds", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True) as process:
            os.close(terminal)
            self.assertIn("1 at once", process.communicate(timeout=60)[0])
        said = read_terminal(leader)
        os.close(leader)
        self.assertRegex(said.decode(), r"run 1 of 1, \d\.\d s: [1-9]\d* answered, \d+ under way, 0 errors; p50 [1-9]")

    def test_wrong_options_are_named(self):
        for words, text in (
            (("--model", "glyphs@"), "NAME[@PRECISION][=WEIGHT]"),
            (("--model", "glyphs=0"), "glyphs=0"),
            (("--model", "glyphs", "--rate", "fast"), "fast"),
            (("--model", "glyphs", "--model", "twin", "--data", TEST_SET), "--data"),
            (("--model", "nobody"), "nobody"),
            (("--model", "fixed", "--rows", 8), "--rows: input 'x' of model 'fixed' is [1,4]: expected 1 rows, got 8"),
            (("--model", "glyphs", "--rows", 2_000_000_000), "--rows: input 'image' of model 'glyphs' would be [2000000000,3,32,32] of "),
        ):
            done = run(*words)
            self.assertEqual(done.returncode, 1, words)
            self.assertIn(text, done.stderr)
        for words in (("--rate", 5, "--concurrency", 2), ("--arrivals", "sometimes"), ("--concurrency", 0)):
            self.assertEqual(run("--model", "glyphs", *words).returncode, 2, words)
        for words, needed in (  # Nobody would read them.
            (("--arrivals", "constant"), "--rate"),
            (("--max-in-flight", 2), "--rate"),
            (("--map", GLYPHS / "model.yaml"), "--data"),
        ):
            done = run("--model", "glyphs", "--seconds", 0.1, *words)
            self.assertEqual(done.returncode, 2, words)
            self.assertIn(needed, done.stderr)


if __name__ == "__main__":
    OCTET = sys.argv[1]
    octet_process.main()
