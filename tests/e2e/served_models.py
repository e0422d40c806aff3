"""A model repository that tests of clients serve: the demo's model in two precisions, and models that are broken."""

import functools
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy
import onnx
import onnx.numpy_helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "demo"))
import server  # noqa: E402

GLYPHS = ROOT / "demo/models/glyphs"
LABELS = (GLYPHS / "labels.txt").read_text().split()
MAX_MESSAGE_BYTES = 1 << 20
CONFIGURATION = f"limits: {{max_message_bytes: {MAX_MESSAGE_BYTES}}}\nlogging: {{access_log: true}}\n"


def load_test_set():
    """Returns the demo's images, uint8 [N, 3, 32, 32], and their labels."""
    with numpy.load(ROOT / "demo/data/test.npz") as data:
        return data["inputs"], data["labels"]


def _write_nan_model(path):
    """Writes the demo's model with one weight of its last layer that is no number: a Relu would hide it."""
    model = onnx.load(GLYPHS / "1/fp32.onnx")
    tensor = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2)
    weights = onnx.numpy_helper.to_array(tensor).copy()
    weights[0, 0] = numpy.nan
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


@functools.cache
def _made(octet):
    """Returns the folder, which lives as long as this process, with the demo's model in int8."""
    folder = tempfile.TemporaryDirectory()
    words = ["--calibration", ROOT / "demo/data/calibration.npz", "--map", GLYPHS / "model.yaml", "--to", "int8", "--out", folder.name]
    subprocess.run([octet, "quantize", GLYPHS / "1/fp32.onnx", *words], check=True, stdout=subprocess.DEVNULL, timeout=120)
    return folder


def make_repository(octet, folder):
    """Returns the folder of models under `folder`.

    glyphs (fp32 and int8), nan (a weight is no number), garbage (no ONNX file), hollow (a version without a file).
    """
    models = pathlib.Path(folder) / "models"
    version = models / "glyphs/1"
    version.mkdir(parents=True)
    shutil.copy(GLYPHS / "1/fp32.onnx", version)
    shutil.copy(GLYPHS / "labels.txt", version.parent)
    shutil.copy(pathlib.Path(_made(octet).name, "int8.onnx"), version)
    (version.parent / "model.yaml").write_text(
        (GLYPHS / "model.yaml").read_text() + "routing: {split: {fp32: 1, int8: 1}, sticky: {parameter: user}}\n"
    )
    _write_nan_model(models / "nan/1/fp32.onnx")
    (models / "garbage/1").mkdir(parents=True)
    (models / "garbage/1/fp32.onnx").write_bytes(b"\xff" * 1000)
    (models / "hollow/1").mkdir(parents=True)
    return models


def run_client(octet, make_command):
    """Runs another language's client of a served demo model to its end; returns 0 when it and the server end well.

    make_command(folder, target, image, label): the client's command; `image` is a file with one image, which shows `label`.
    """
    images, truth = load_test_set()
    with tempfile.TemporaryDirectory() as scratch:
        image = pathlib.Path(scratch, "image")
        image.write_bytes(images[0].tobytes())
        with server.Server(octet, make_repository(octet, scratch), scratch, CONFIGURATION) as running:
            command = make_command(pathlib.Path(scratch), running.grpc, image, LABELS[truth[0]])
            if subprocess.run(command, timeout=120, check=False).returncode != 0:
                print(running.last_words(), file=sys.stderr)
                return 1
            running.stop()
    return 0
