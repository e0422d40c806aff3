"""Runs `octet` for the tests of this folder; each takes the path of the executable as its first argument."""

import json
import pathlib
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
_executable = ""


def executable():
    """Returns the path of what is tested."""
    return _executable


def octet(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE):
    """Returns the finished process; its output is text."""
    command = [_executable, *map(str, words)]
    return subprocess.run(command, stdout=stdout, stderr=stderr, text=True, timeout=240, check=False)


def start(*words):
    """Returns the running process; its output is text."""
    command = [_executable, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answer(*words):
    """Returns what a verb prints with --json; fails the test when the verb fails."""
    done = octet(*words, "--json")
    if done.returncode != 0:
        raise AssertionError(f"octet {' '.join(map(str, words))} ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def main():
    """Runs the tests of the script that calls it."""
    global _executable
    _executable = sys.argv.pop(1)
    unittest.main(module="__main__", verbosity=2)
