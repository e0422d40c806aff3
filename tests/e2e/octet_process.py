"""Runs `octet` for the tests of this folder; each takes the path of the executable as its first argument."""

import json
import pathlib
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
_executable = ""
# What a process that runs this was itself is small: a child's peak begins with its parent's.
_PEAK = """
import os, sys
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def executable():
    """Returns the path of what is tested."""
    return _executable


def octet(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE):
    """Returns the finished process; its output is text."""
    command = [_executable, *map(str, words)]
    return subprocess.run(command, stdout=stdout, stderr=stderr, text=True, timeout=240, check=False)


def peak_of(*words):
    """Returns what a verb prints, and the most KiB that its process has had; fails the test when the verb fails."""
    command = [sys.executable, "-I", "-S", "-c", _PEAK, _executable, *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=240, check=False)
    if done.returncode != 0:
        raise AssertionError(f"octet {' '.join(map(str, words))} ended with {done.returncode}: {done.stderr}")
    *printed, peak = done.stdout.splitlines(keepends=True)
    return "".join(printed), int(peak)


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
