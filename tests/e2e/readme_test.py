#!/usr/bin/env python3
"""Runs the commands that the documentation shows, so that none of them goes stale.

A command is a line of an indented or fenced block whose first line looks like one; the lines of a block are one script. Blocks whose commands another test runs, or that must not run here, are in COVERED; the list is exact.
"""

import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "demo/README.md", "engine/README.md", "deploy/README.md"]
COMMAND = re.compile(r"(?:\./dev|bash|octet|promtool|prometheus|python3|[A-Z]+=)\b")
SECONDS = 240

# Each command that is not run here: the file that has it run, and the words there that do it.
COVERED = {
    "./dev demo": ("tests/e2e/demo_test.py", 'ROOT / "dev", "demo"'),
    "./dev test": (".ci/run", "ctest --preset"),
    "./dev build": (".ci/run", "./dev build release"),
    "./dev lint && ./dev format": (".ci/run", "tests/lint/format.py"),
    "./dev bench": ("dev", "become_python tests/bench/run.py"),
    "bash .ci/run": (".ci/run", "CI passed"),
    "prometheus --config.file=deploy/prometheus/prometheus.yml": ("tests/e2e/prometheus_test.py", '"prometheus", f"--config.file='),
    # These need a server with traffic.
    "octet rollout glyphs --server localhost:8000 --repository models --calibration sample.npz": (
        "tests/e2e/rollout_case.py",
        '[self.octet, "rollout", served.model, *flags',
    ),
    "octet experiments glyphs --server localhost:8000": ("tests/e2e/rollout_test.py", '"experiments", "glyphs", "--server"'),
    # They need a running server and what it captured.
    "./dev run -- octet quantize models/glyphs/1/fp32.onnx --calibration captures/glyphs/1/uint8-3x32x32.npz --map models/glyphs/model.yaml --to int8 --out models/glyphs/1": (
        "tests/e2e/capture_test.py",
        '"fp32.onnx", "--calibration", file, "--map", MAP, "--to", "int8"',
    ),
    "./dev run -- octet replay captures/glyphs/1/uint8-3x32x32.npz --server localhost:8001 --model glyphs --precision int8 --against fp32 --min-agreement 98": (
        "tests/e2e/capture_test.py",
        '"--precision", "int8", "--against", "fp32"',
    ),
    # These two write the data and the model that are committed, and need the packages of the training.
    "./dev train-demo": ("dev", "train-demo) become_python demo/train.py"),
    "./dev shell -c 'python3 demo/generate.py'": ("demo/train.py", "generate"),
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


class DocumentedCommandsTest(unittest.TestCase):
    def test_commands_run(self):
        ran = 0
        for document in DOCUMENTS:
            for block in blocks((ROOT / document).read_text()):
                script = [line for line in block if line not in COVERED]
                if not script:
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
        for command, (file, words) in COVERED.items():
            self.assertIn(words, (ROOT / file).read_text(), f"{file} does not run {command}")

    def test_the_first_screen_has_the_two_commands(self):
        first = [line for block in blocks((ROOT / "README.md").read_text()) for line in block][:2]
        self.assertEqual(first, ["./dev demo", "./dev test"])


if __name__ == "__main__":
    unittest.main()
