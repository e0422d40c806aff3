"""The demo model, its data, and what its bytes stand for."""

import re

import numpy as np

from octet_process import ROOT

FP32 = ROOT / "demo/models/glyphs/1/fp32.onnx"
MAP = ROOT / "demo/models/glyphs/model.yaml"
CALIBRATION = ROOT / "demo/data/calibration.npz"
TEST = ROOT / "demo/data/test.npz"


def mapped(integers, map_file=MAP):
    """The model's reals for what a client sends: real = scale[c] * (q - zero_point[c]), c on axis 1."""
    text = map_file.read_text()
    scale, zero_point = (
        np.array([float(x) for x in re.search(rf"{key}: \[([^]]*)\]", text)[1].split(",")], np.float32)
        for key in ("scale", "zero_point")
    )
    if len(scale) > 1:
        scale, zero_point = (a.reshape([1, -1] + [1] * (integers.ndim - 2)) for a in (scale, zero_point))
    return scale * (integers.astype(np.float32) - zero_point)
