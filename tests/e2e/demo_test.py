#!/usr/bin/env python3
"""Runs `./dev demo` as a newcomer does, pastes what `--stay` offers, and gets in its way.

usage: demo_test.py OCTET
"""

import fcntl
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
import unittest.mock
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "demo"))
import server  # noqa: E402
PRECISIONS = ["fp32", "fp16", "bf16", "int8", "int8-dynamic"]
SECONDS = 170


def demo(*words, octet=None):
    """Starts the demo; with `octet` under that program and not through ./dev. Its two outputs are pipes."""
    command, environment = [ROOT / "dev", "demo"], dict(os.environ)
    if octet:
        command = [sys.executable, ROOT / "demo/run.py"]
        environment["PATH"] = f"{pathlib.Path(octet).parent}:{environment['PATH']}"
    command = [*map(str, command), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def processes_of(folder):
    """Returns the ids of the processes whose command line names a folder."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(folder) in (entry / "cmdline").read_bytes().decode(errors="replace"):
                found.append(int(entry.name))
        except OSError:
            pass  # it ended meanwhile
    return found


def server_of(process, folder):
    """Waits until the demo knows that its server serves, and returns the server's process id."""
    said = []
    for line in process.stderr:
        said.append(line)
        if re.match("starting octet serve .* s$", line):
            words = {process: pathlib.Path(f"/proc/{process}/cmdline").read_bytes() for process in processes_of(folder)}
            (found,) = [process for process, command in words.items() if b"\0serve\0" in command]
            return found
    raise AssertionError(f"the demo starts no server: {said}")


def table(output):
    """Returns the printed table as {precision: {head: cell}}."""
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in output.splitlines() if line.startswith("|")]
    heads, _, *rows = lines
    return {row[0]: dict(zip(heads, [*row, ""], strict=False)) for row in rows}


def number(cell):
    return float(re.match(r"[\d.]+", cell)[0])


class DemoTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        process = demo("--out", cls.folder.name)
        cls.output, cls.said = process.communicate(timeout=SECONDS)
        if process.returncode != 0:
            raise AssertionError(f"the demo ended with {process.returncode}: {cls.output}{cls.said}")
        cls.table = table(cls.output)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def column(self, head):
        return {precision: number(row[head]) for precision, row in self.table.items() if row[head]}

    def test_every_precision_has_a_row(self):
        self.assertEqual(list(self.table), PRECISIONS)

    def test_quantized_files_and_weights_are_smaller(self):
        ratio, weights = self.column("ratio"), self.column("weights")
        self.assertEqual(ratio["fp32"], 1)
        self.assertLess(max(ratio["fp16"], ratio["bf16"]), 0.53)
        self.assertLess(max(ratio["int8"], ratio["int8-dynamic"]), 0.30)
        self.assertLess(weights["int8"], 0.5 * weights["fp32"])

    def test_answers_over_the_wire_are_as_good_as_the_model(self):
        accuracy, agreement = self.column("accuracy"), self.column("same as fp32")
        self.assertAlmostEqual(accuracy["fp32"], 92.12, delta=0.07)
        self.assertEqual(agreement["fp32"], 100)
        for precision, least in (("fp16", 99.8), ("bf16", 99.5), ("int8", 99.0), ("int8-dynamic", 98.5)):
            self.assertGreaterEqual(agreement[precision], least, precision)
            self.assertGreaterEqual(accuracy[precision], accuracy["fp32"] - 0.5, precision)

    def test_time_was_measured(self):
        for row in self.table.values():
            self.assertLessEqual(0.01, number(row["p50"]))
            self.assertLessEqual(number(row["p50"]), number(row["p99"]))
            self.assertGreater(number(row["images"]), 1)

    def test_int8_ran_in_int8(self):
        self.assertRegex(self.table["fp32"]["multiply-adds"], r"^100\.0 % f32$")
        for precision in ("int8", "int8-dynamic"):
            share = re.search(r"([\d.]+) % int8", self.table[precision]["multiply-adds"])
            self.assertGreaterEqual(float(share[1]), 97, self.table[precision])

    def test_the_split_follows_its_weights(self):
        # 1,536 draws: five standard deviations are 5.5 points.
        self.assertEqual(set(self.column("split")), {"fp32", "int8"})
        self.assertAlmostEqual(self.column("split")["int8"], 75, delta=5.6)
        self.assertAlmostEqual(sum(self.column("split").values()), 100, delta=0.11)
        self.assertIn("0 of 200 users that asked twice got another precision", self.output)

    def test_metrics_are_shown(self):
        self.assertRegex(self.output, r'octet_requests_total\{.*precision="int8".*\} \d+')
        self.assertRegex(self.output, r'octet_batch_rows_bucket\{.*precision="int8".*le="[248]".*\} \d+')

    def test_progress_is_said(self):
        for step in ("quantizing", "starting octet serve", *(f"images to {name}" for name in PRECISIONS), "stopping"):
            self.assertRegex(self.said, rf"(?m)^.*{step}.* s$")

    def test_nothing_is_left_running(self):
        self.assertEqual(processes_of(self.folder.name), [])
        self.assertIn("The server ended with 0", self.output)


def readme_block(first):
    """Returns the README's only indented block whose first line begins like this, as a script."""
    blocks = re.findall(r"(?:^ {4}.*\n)+", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    (block,) = [block for block in blocks if block.strip().startswith(first)]
    return block


class PortsTest(unittest.TestCase):
    def test_taken_ports_are_left_alone(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            ports = {**server.FREE_PORTS, "http": taken.getsockname()[1]}
            with unittest.mock.patch.object(server, "DEFAULT_PORTS", ports):
                self.assertEqual(server.default_ports(), server.FREE_PORTS)
                taken.close()
                self.assertEqual(server.default_ports(), ports)

    def test_they_are_those_of_the_configuration(self):
        listen = (ROOT / "config/octet.yaml").read_text()
        for name, port in server.DEFAULT_PORTS.items():
            self.assertRegex(listen, rf"(?m)^  {name}_port: {port} ")


class StayTest(unittest.TestCase):
    def setUp(self):
        self.folder = self.enterContext(tempfile.TemporaryDirectory())
        self.process = demo("--stay", "--out", self.folder)
        self.addCleanup(lambda: (self.process.terminate(), self.process.communicate()))

    def read_offer(self):
        """Returns what the demo prints up to its last command."""
        lines = []
        for line in self.process.stdout:
            lines.append(line.strip())
            if "octet load" in line:
                return lines
        raise AssertionError(f"the demo offers nothing: {lines} {self.process.stderr.read()}")

    def test_what_is_offered_works(self):
        offered = self.read_offer()
        commands = [line for line in offered if line.startswith("./dev run")]
        self.assertEqual(len(commands), 2, offered)
        for command, expected in zip(commands, (r"image 7 shows \w; int8 reads \w", r"(?m)^ *1 .* 0$"), strict=True):
            done = subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stdout, expected)
        urls = re.findall(r"http://\S+", "\n".join(offered))
        for url in urls:
            with urllib.request.urlopen(url, timeout=10) as reply:
                self.assertEqual(reply.status, 200, url)
                page = reply.read().decode()
            if url == urls[0]:
                self.assertIn("<html", page)
        self.run_what_the_readme_shows(offered)
        self.process.send_signal(signal.SIGTERM)
        output, said = self.process.communicate(timeout=60)
        self.assertEqual(self.process.returncode, 0, output + said)
        self.assertEqual(processes_of(self.folder), [])


    def run_what_the_readme_shows(self, offered):
        """Runs the README's HTTP example: as it is, or at the address that the demo fell back to because its ports were taken."""
        script = readme_block("curl")
        self.assertIn("localhost:8000", script)
        (address,) = re.findall(r"(?m)^page +http://([^/]+)/$", "\n".join(offered))
        if "other ports than the usual ones" in "\n".join(offered):
            script = script.replace("localhost:8000", address)
        else:
            self.assertEqual(address, "127.0.0.1:8000")
        command = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn('"glyphs"', done.stdout)
        self.assertIn('"int8"', done.stdout)


class TroubleTest(unittest.TestCase):
    def start(self, folder, octet):
        process = demo("--out", folder, octet=octet)
        self.addCleanup(lambda: (process.terminate(), process.communicate()))
        return process

    def expect(self, process, problem):
        output, said = process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 1, output + said)
        self.assertRegex(said, rf"(?m)^demo: {problem}")

    def test_a_second_demo_in_the_same_folder_is_refused(self):
        with tempfile.TemporaryDirectory() as folder, pathlib.Path(folder, "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.expect(self.start(folder, OCTET), "another demo runs in")

    def test_a_verb_that_fails_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            octet = pathlib.Path(folder, "octet")
            octet.write_text("#!/bin/sh\necho 'octet: no space' >&2\nexit 3\n")
            octet.chmod(0o755)
            self.expect(self.start(folder + "/out", octet), "octet quantize ended with 3")

    def test_a_server_that_does_not_start_is_quoted(self):
        with tempfile.TemporaryDirectory() as folder:
            octet = pathlib.Path(folder, "octet")
            octet.write_text(f'#!/bin/sh\n[ "$1" = serve ] || exec {OCTET} "$@"\necho "no port is free" >&2\nexit 1\n')
            octet.chmod(0o755)
            self.expect(self.start(folder + "/out", octet), r"octet serve ended with 1 before it served:\nno port is free")

    def test_a_server_that_dies_ends_the_demo(self):
        with tempfile.TemporaryDirectory() as folder:
            process = self.start(folder, OCTET)
            os.kill(server_of(process, folder), signal.SIGKILL)
            self.expect(process, "a request failed with UNAVAILABLE")

    def test_an_interrupted_demo_takes_its_server_along(self):
        with tempfile.TemporaryDirectory() as folder:
            process = self.start(folder, OCTET)
            server_of(process, folder)
            process.send_signal(signal.SIGTERM)
            self.expect(process, "interrupted")
            self.assertEqual(processes_of(folder), [])


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    unittest.main()
