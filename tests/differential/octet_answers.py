"""Octet's answers, by the process of answers.cc; it is started again when a model ended it."""

import json
import os
import subprocess
import threading

import numpy as np
from onnx import TensorProto, numpy_helper

SECONDS = 60  # For one model.
DTYPES = {
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BOOL": np.bool_, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32,
    "INT64": np.int64, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
}  # fmt: skip


class Failed(Exception):
    """Octet refuses the model, or the process ended."""


def in_order(model, inputs):
    return [inputs[info.name] for info in model.graph.input if info.name in inputs]


def write_case(folder, model, inputs, outputs=()):
    """A folder that `octet check FOLDER/model.onnx --golden FOLDER` reads."""
    write_set(folder / "test_data_set_0", in_order(model, inputs), outputs)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def write_set(folder, inputs, outputs):
    """A folder in ONNX's test_data_set form, of arrays or TensorProtos."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, arrays in (("input", inputs), ("output", outputs)):
        for i, array in enumerate(arrays):
            proto = array if isinstance(array, TensorProto) else numpy_helper.from_array(array)
            (folder / f"{kind}_{i}.pb").write_bytes(proto.SerializeToString())


class Octet:
    """Asks one process about many models. `environment` is added to its own."""

    def __init__(self, executable, folder, environment=None):
        self.executable, self.folder = executable, folder
        self.environment = {**os.environ, **(environment or {})}
        self.process = None

    def answers(self, model, inputs, precision="-"):
        """Outputs by name, in the model's own precision or another. Raises Failed."""
        write_case(self.folder, model, inputs)
        return dict(zip([o.name for o in model.graph.output], self.ask(self.folder, precision=precision)))

    def answers_in_turn(self, model, sets):
        """Outputs by name to each of several sets of inputs, by one loaded model. Raises Failed."""
        write_case(self.folder, model, sets[0])
        for i, inputs in enumerate(sets[1:], 1):
            write_set(self.folder / f"test_data_set_{i}", in_order(model, inputs), ())
        names = [o.name for o in model.graph.output]
        outputs = self.ask(self.folder, sets=len(sets))
        return [dict(zip(names, outputs[i * len(names) :])) for i in range(len(sets))]

    def ask(self, folder, passes="-", precision="-", sets=1):
        """Outputs of a folder that write_case wrote, those of each set behind the ones before."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen([self.executable], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environment)
        watchdog = threading.Timer(SECONDS, self.process.kill)
        watchdog.start()
        try:
            return self._ask(f"{folder}\t{passes}\t{precision}\t{sets}\n")
        finally:
            watchdog.cancel()

    def _ask(self, line):
        try:
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        header = self.process.stdout.readline()
        if not header:
            raise Failed(f"the process ended with {self.process.wait()}")
        reply = json.loads(header)
        if "error" in reply:
            raise Failed(reply["error"])
        return [self._array(output) for output in reply["outputs"]]

    def _array(self, output):
        if "texts" in output:
            return np.array(output["texts"], object).reshape(output["shape"])
        data = self.process.stdout.read(output["bytes"])
        if output["dtype"] == "BF16":  # As the floats that they stand for.
            return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(output["shape"])
        return np.frombuffer(data, DTYPES[output["dtype"]]).reshape(output["shape"])

    def close(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait()
