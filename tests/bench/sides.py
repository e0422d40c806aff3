"""The two programs that take turns: `octet bench --rounds` and the peer, each a process that holds one model."""

import json
import pathlib
import re
import subprocess
import tempfile
import threading
import time

import numpy as np
import onnx

SECONDS = 240  # that a side may take to get ready, or for a round


class SideError(Exception):
    """What a side said on stderr before it ended."""


class Side:
    """One process that measures a round whenever it is told to. Says its answers when it is ready."""

    def __init__(self, name, command):
        self._name = name
        self._said = tempfile.TemporaryFile("w+")
        started = time.monotonic()
        self._process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True
        )
        try:
            ready = self._read()
        except BaseException:
            self.close()
            raise
        self.ready_ms = 1e3 * (time.monotonic() - started)
        self.peak_bytes = self._peak_bytes()
        self.answers = ready["outputs"]
        self.version = ready.get("version")
        self.rounds = []

    def _read(self):
        watch = threading.Timer(SECONDS, self._process.kill)
        watch.start()
        line = self._process.stdout.readline()
        watch.cancel()
        if line:
            return json.loads(line)
        self._process.wait()
        self._said.seek(0)
        lines = self._said.read().strip().splitlines() or [f"{self._name}: ended with {self._process.returncode}"]
        raise SideError(lines[-1])

    def _peak_bytes(self):
        status = pathlib.Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status)[1])

    def round(self, seconds):
        try:
            self._process.stdin.write(f"{seconds}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # reading tells why
        self.rounds.append(self._read())

    def close(self):
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def octet(program, file, arrays, threads, folder, precision=None):
    """Starts Octet on a model file. arrays: its inputs, {name: array}; folder: where they are written for it."""
    archive = pathlib.Path(folder, "inputs.npz")
    np.savez(archive, **arrays)
    command = [program, "bench", file, "--inputs", archive, "--threads", threads, "--rounds"]
    return Side("octet", [*command, *(["--precision", precision] if precision else [])])


def peer(program, library, file, arrays, threads, folder):
    """Starts the peer on a model file, as octet()."""
    inputs = []
    for index, (name, array) in enumerate(arrays.items()):
        path = pathlib.Path(folder, f"{index}.bin")
        path.write_bytes(np.ascontiguousarray(array).tobytes())
        element_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        inputs.append(f"{name}:{path}:{element_type}:{'x'.join(map(str, array.shape))}")
    return Side("peer", [program, library, file, threads, *inputs])


def take_turns(sides, rounds, seconds, settle):
    """Lets the sides measure in turn, A B A B. settle: seconds between, in which one's idle threads stop to spin."""
    for _ in range(rounds):
        for side in sides:
            time.sleep(settle)
            side.round(seconds)
