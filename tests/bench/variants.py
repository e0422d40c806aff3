"""int8 files of one network, each side's made by its own quantizer from the same calibration data, and kept."""

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
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

class Reader(CalibrationDataReader):
    def __init__(self, name, rows):
        self.batches = iter([{name: rows[i : i + 1]} for i in range(len(rows))])
    def get_next(self):
        return next(self.batches, None)

source, prepared, name, rows, out = sys.argv[1:]
quant_pre_process(source, prepared)
quantize_static(prepared, out, Reader(name, np.load(rows)), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
"""


class QuantizeError(Exception):
    """Why a quantizer makes no file."""


def _run(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise QuantizeError((done.stderr.strip().splitlines() or ["no word"])[-1])


def _kept(cache, parts, make):
    """Returns the file that `parts` (paths and words) stand for, made by make(path) unless it is there."""
    key = hashlib.sha256()
    for part in parts:
        key.update(pathlib.Path(part).read_bytes() if isinstance(part, pathlib.Path) else part.encode())
    file = cache / "int8" / f"{key.hexdigest()[:16]}.onnx"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            make(pathlib.Path(folder))
            pathlib.Path(folder, "int8.onnx").rename(file)
    return file


def by_octet(program, model, cache):
    """Returns the int8 file that `octet quantize` makes with its default recipe. Raises QuantizeError."""
    words = ["--calibration", model.calibration, *(["--map", model.map] if model.map else [])]
    parts = [pathlib.Path(program), model.fp32, *(word for word in words if isinstance(word, pathlib.Path))]
    return _kept(cache, parts, lambda out: _run([program, "quantize", model.fp32, "--to", "int8", *words, "--out", out]))


def by_peer(model, cache):
    """Returns the int8 file of ONNX Runtime's static quantizer: QDQ, u8 activations, s8 weights per channel, ranges by
    min-max. Raises QuantizeError."""

    def make(out):
        (name, _, _), *_ = catalog.inputs_of(model.fp32)
        np.save(out / "rows.npy", catalog.mapped(model, model.calibration))
        _run([sys.executable, "-c", PEER, model.fp32, out / "prepared.onnx", name, out / "rows.npy", out / "int8.onnx"])

    parts = [model.fp32, model.calibration, *([model.map] if model.map else []), PEER]
    return _kept(cache, parts, make)
