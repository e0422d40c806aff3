#!/usr/bin/env python3
"""Runs the commands that the documentation shows, so that none of them goes stale.

usage: readme_test.py OCTET

A command is a line of an indented or fenced block whose first line looks like one; the lines of a block are one script. Blocks whose commands another test runs, or that must not run here, are in COVERED; the list is exact. Whether a command runs or not, octet has every option that is shown with it.
"""

import json
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
import urllib.request

OCTET = ""
ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "demo/README.md", "engine/README.md", "deploy/README.md"]
COMMAND = re.compile(r"(?:\./dev|bash|octet|promtool|prometheus|haproxy|python3|mkdir|[A-Z]+=)\b")
SECONDS = 240
SERVE = "./dev run -- octet serve --repository build/models"
# The blocks that need the server of SERVE begin so: the same test follows them.
LOAD = "./dev run -- octet load "

# Each command that is not run here: the files that have it run, and the words there that do it.
COVERED = {
    "./dev demo": [("tests/e2e/demo_test.py", 'ROOT / "dev", "demo"')],
    "./dev test": [(".ci/run", "ctest --preset")],
    "./dev build": [(".ci/run", "./dev build release")],
    # Of the two programs that lint consists of each is a step; format is below.
    "./dev lint && ./dev format": [
        ("dev", 'python3 "$OCTET_ROOT/tests/lint/run.py" && python3 "$OCTET_ROOT/tests/lint/format.py"'),
        (".ci/run", "./dev run -- python3 tests/lint/run.py"),
        (".ci/run", "./dev run -- python3 tests/lint/format.py"),
        ("tests/e2e/readme_test.py", '[ROOT / "dev", "format", '),
    ],
    "./dev bench": [("dev", "become_python tests/bench/run.py")],
    "bash .ci/run": [(".ci/run", "CI passed")],
    "prometheus --config.file=deploy/prometheus/prometheus.yml --storage.tsdb.path=build/prometheus": [("tests/e2e/prometheus_test.py", '"prometheus", f"--config.file=')],
    "haproxy -f deploy/haproxy/haproxy.cfg": [("tests/e2e/deployment_test.py", '["haproxy", *words, "-f", self.file]')],
    # It ends when it is told to.
    SERVE: [("tests/e2e/readme_test.py", "[*shlex.split(SERVE), ")],
    # They need a running server and what it captured.
    "./dev run -- octet quantize build/models/glyphs/1/fp32.onnx --calibration build/captures/glyphs/1/uint8-3x32x32.npz --map build/models/glyphs/model.yaml --to int8 --out build/models/glyphs/1": [
        ("tests/e2e/capture_test.py", '"fp32.onnx", "--calibration", file, "--map", MAP, "--to", "int8"'),
    ],
    "./dev run -- octet replay build/captures/glyphs/1/uint8-3x32x32.npz --server localhost:8001 --model glyphs --precision int8 --against fp32 --min-agreement 98": [
        ("tests/e2e/capture_test.py", '"--precision", "int8", "--against", "fp32"'),
    ],
    # These two write the data and the model that are committed, and need the packages of the training.
    "./dev train-demo": [("dev", "train-demo) become_python demo/train.py")],
    "./dev shell -c 'python3 demo/generate.py'": [("demo/train.py", "generate")],
}


def blocks(text):
    """Returns the blocks of commands of a document: lists of lines without comments."""
    found, block, fenced = [], [], False
    for line in [*text.splitlines(), ""]:
        if line.startswith("```"):
            fenced = not fenced
            line = ""
        if fenced or re.match(r"(?: {4}|\t)\S", line):
            block.append(re.sub(r"\s+#.*$", "", line).strip())
        elif block:
            found.append(block)
            block = []
    return [block for block in found if COMMAND.match(block[0])]


def documented():
    """Yields (document, line) of every command."""
    for document in DOCUMENTS:
        for block in blocks((ROOT / document).read_text()):
            for line in block:
                yield document, line


def shown_options():
    """Yields (document, verb, option) of each octet call that is shown: in a block, or in the text between backquotes."""
    for document in DOCUMENTS:
        text = (ROOT / document).read_text()
        calls = [line for block in blocks(text) for line in block]
        calls += re.findall(r"`(octet [^`]*)`", text)
        for call in calls:
            found = re.match(r"(?:\./dev run -- )?octet ([a-z]+)\b(.*)", call, re.DOTALL)
            if found:
                for option in re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", found[2]):
                    yield document, found[1], option


class DocumentedCommandsTest(unittest.TestCase):
    def test_commands_run(self):
        ran = 0
        for document in DOCUMENTS:
            for block in blocks((ROOT / document).read_text()):
                script = [line for line in block if line not in COVERED]
                if not script or block[0].startswith(LOAD):
                    continue
                with self.subTest(document=document, script=script):
                    command = ["bash", "-euo", "pipefail", "-c", "\n".join(script)]
                    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
                    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                    ran += 1
        self.assertGreater(ran, 1)

    def test_the_list_of_covered_commands_is_exact(self):
        commands = {line for _, line in documented()}
        self.assertEqual(set(COVERED) - commands, set(), "listed, and in no document")
        for command, places in COVERED.items():
            for file, words in places:
                text = (ROOT / file).read_text()
                # The list itself is no proof.
                text = text.partition("def blocks(")[2] if ROOT / file == pathlib.Path(__file__).resolve() else text
                self.assertIn(words, text, f"{file} does not run {command}")

    def test_octet_has_the_options_that_are_shown(self):
        shown, helps = list(shown_options()), {}
        self.assertGreater(len(shown), 20)
        for document, verb, option in shown:
            if verb not in helps:
                done = subprocess.run([OCTET, verb, "--help"], capture_output=True, text=True, timeout=60, check=False)
                self.assertEqual(done.returncode, 0, f"{document}: octet {verb}")
                helps[verb] = done.stdout
            self.assertRegex(helps[verb], rf"(?<![\w-]){option}(?![\w-])", f"{document}: octet {verb}")

    def test_the_table_has_every_verb(self):
        done = subprocess.run([OCTET, "--help"], capture_output=True, text=True, timeout=60, check=True)
        verbs = re.findall(r"(?m)^  ([a-z]+) ", done.stdout.partition("Subcommands:")[2])
        table = re.findall(r"(?m)^\| `octet ([a-z]+)` \|", (ROOT / "README.md").read_text())
        self.assertEqual(sorted(table), sorted(verbs))

    def test_dev_has_the_verbs_that_are_shown(self):
        help_text = subprocess.run([ROOT / "dev", "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
        text = "".join((ROOT / document).read_text() for document in DOCUMENTS)
        verbs = set(re.findall(r"\./dev ([a-z][a-z-]*)", text))
        self.assertIn("format", verbs)
        for verb in verbs:
            self.assertRegex(help_text, rf"(?m)^  {verb} ")

    def test_format_mends_a_file(self):
        original = (ROOT / "server/ticker.cc").read_text()
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "ticker.cc")
            shutil.copy(ROOT / ".clang-format", folder)
            file.write_text(original.replace("\n  ", "\n      "))
            self.assertNotEqual(file.read_text(), original)
            done = subprocess.run([ROOT / "dev", "format", file], capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(file.read_text(), original)

    def test_a_model_of_ones_own_comes_to_its_traffic(self):
        """Follows the README in a folder that has the checkout's files beside a build folder of its own."""
        block = self.block_with(SERVE)
        self.assertEqual(block[-1], SERVE)
        with tempfile.TemporaryDirectory() as folder:
            for name in ("dev", "demo"):
                pathlib.Path(folder, name).symlink_to(ROOT / name)
            self.run_script(block[:-1], folder)
            command = [*shlex.split(SERVE), "--address", "127.0.0.1", *"--grpc-port 0 --http-port 0 --metrics-port 0".split()]
            log = pathlib.Path(folder, "log")
            with log.open("wb") as out, subprocess.Popen(command, cwd=folder, stdout=out, stderr=out) as server:
                try:
                    addresses = self.wait_for_addresses(server, log)
                    self.ask_as_the_readme_shows(addresses)
                    self.give_int8_the_traffic(folder, addresses)
                    self.split_by_hand(folder, addresses)
                finally:
                    server.send_signal(signal.SIGTERM)
                    server.wait(timeout=60)
            self.assertEqual(server.returncode, 0, log.read_text())

    def block_with(self, beginning):
        """Returns the README's only block of commands that has a line which begins so."""
        found = blocks((ROOT / "README.md").read_text())
        (block,) = [block for block in found if any(line.startswith(beginning) for line in block)]
        return block

    def run_script(self, lines, folder, addresses=None):
        """Runs lines as one script, sent to a server's addresses in the place of the usual ones; nothing of it is left running."""
        script = "\n".join(["trap 'kill $(jobs -p) 2> /dev/null || true' EXIT", *lines])
        for usual, address in (addresses or {}).items():
            script = script.replace(usual, address)
        command = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def wait_for_addresses(self, server, log):
        """Returns where a server that starts serves, by the addresses of the documentation."""
        until = time.monotonic() + 60
        while time.monotonic() < until and server.poll() is None:
            found = re.search(r"event=serving grpc=(\S+) http=(\S+)", log.read_text())
            if found:
                return {"localhost:8001": found[1], "localhost:8000": found[2]}
            time.sleep(0.05)
        raise AssertionError(log.read_text())

    def ask_as_the_readme_shows(self, addresses):
        with urllib.request.urlopen(f"http://{addresses['localhost:8000']}/v2/models/glyphs/ready", timeout=20) as answer:
            self.assertEqual(answer.status, 200)
        (shown,) = re.findall(r"`(curl -sS localhost[^`]*)`", (ROOT / "README.md").read_text())
        self.assertEqual(json.loads(self.run_script([shown], ROOT, addresses))["name"], "glyphs")

    def weights(self, addresses):
        """Returns the weight of each precision that has one."""
        with urllib.request.urlopen(f"http://{addresses['localhost:8000']}/v2/models/glyphs/experiments", timeout=20) as answer:
            arms = json.load(answer)["experiments"][-1]["precisions"]
        return {arm["precision"]: arm["weight"] for arm in arms if arm["weight"] > 0}

    def give_int8_the_traffic(self, folder, addresses):
        quantize = self.block_with("./dev run -- octet quantize $M")
        self.run_script(quantize[:2], folder)
        said = self.run_script(self.block_with(LOAD), folder, addresses)
        self.assertRegex(said, r"(?m)^shadow$(?s:.*)^ramp to 1 %$(?s:.*)^ramp to 100 %$(?s:.*)^promoted$")
        self.assertEqual(self.weights(addresses), {"int8": 100})

    def split_by_hand(self, folder, addresses):
        """Takes the rollout back and writes what the README shows of routing into model.yaml, each followed by a load."""
        readme, model = (ROOT / "README.md").read_text(), pathlib.Path(folder, "build/models/glyphs")
        (load,) = re.findall(r"`(curl -sS -X POST [^`]*/load)`", readme)
        (model / "rollout.yaml").unlink()
        with (model / "model.yaml").open("a") as file:
            (routing,) = re.findall(r"(?m)^ {4}routing:\n(?: {6}.*\n)+", readme)
            file.write(textwrap.dedent(routing))
        self.run_script([load], ROOT, addresses)
        self.assertEqual(self.weights(addresses), {"fp32": 95, "int8": 5})


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    unittest.main()
