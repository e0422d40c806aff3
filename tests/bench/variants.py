"""Quantized files of one network, each side's made by its own quantizer from the same calibration data, and kept."""

import hashlib
import pathlib
import subprocess
import sys
import tempfile

import catalog
import numpy as np

# What the peer's quantizer is run as: a process of its own, because it keeps gigabytes.
# onnx.reference comes first: it finds every operator twice once the library has registered its own, as Debian's does.
PEER = """
import sys
import numpy as np
import onnx.reference
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

class Reader(CalibrationDataReader):
    def __init__(self, name, rows):
        self.batches = iter([{name: rows[i : i + 1]} for i in range(len(rows))])
    def get_next(self):
        return next(self.batches, None)

source, prepared, out, *calibration = sys.argv[1:]
quant_pre_process(source, prepared)
if not calibration:
    quantize_dynamic(prepared, out, per_channel=True, weight_type=QuantType.QInt8)
    sys.exit()
name, rows = calibration
quantize_static(prepared, out, Reader(name, np.load(rows)), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
"""


MADE = ("int8", "int8-dynamic")
FILE = "made.onnx"  # what make() leaves behind in its folder


class QuantizeError(Exception):
    """Why a quantizer makes no file."""


def _run(command, folder=None):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, check=False, cwd=folder)
    if done.returncode != 0:
        raise QuantizeError((done.stderr.strip().splitlines() or ["no word"])[-1])


def _kept(cache, parts, make):
    """Returns the file that `parts` (paths and words) stand for, made by make(folder) unless it is there."""
    key = hashlib.sha256()
    for part in parts:
        key.update(pathlib.Path(part).read_bytes() if isinstance(part, pathlib.Path) else part.encode())
    file = cache / "int8" / f"{key.hexdigest()[:16]}.onnx"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            make(pathlib.Path(folder))
            pathlib.Path(folder, FILE).rename(file)
    return file


# There is no accuracy of random weights that the default recipe could hold by leaving layers in float.
RECIPE_OF_RANDOM_WEIGHTS = ("--method", "min-max")


def by_octet(program, model, precision, cache, recipe=()):
    """Returns the file that `octet quantize` makes, with its default recipe or other words. Raises QuantizeError."""
    words = ["--to", precision, *recipe]
    if precision == "int8":
        words += ["--calibration", model.calibration, *(["--map", model.map] if model.map else [])]

    def make(out):
        _run([program, "quantize", model.fp32, *words, "--out", out])
        (out / f"{precision}.onnx").rename(out / FILE)

    return _kept(cache, [pathlib.Path(program), model.fp32, *words], make)


def by_peer(model, precision, cache):
    """Returns the file of ONNX Runtime's quantizer, weights s8 per channel: int8 is static, QDQ, u8 activations, ranges by
    min-max. Raises QuantizeError."""
    static = precision == "int8"

    def make(out):
        words = [model.fp32, out / "prepared.onnx", out / FILE]
        if static:
            (name, _, _), *_ = catalog.inputs_of(model.fp32)
            np.save(out / "rows.npy", catalog.mapped(model, model.calibration))
            words += [name, out / "rows.npy"]
        _run([sys.executable, "-c", PEER, *words], folder=out)  # which leaves files where it runs

    parts = [model.calibration, *([model.map] if model.map else [])] if static else []
    return _kept(cache, [precision, model.fp32, *parts, PEER], make)
