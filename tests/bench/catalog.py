"""The models that are measured, what they are fed with, and their files in each precision."""

import dataclasses
import fnmatch
import hashlib
import pathlib
import subprocess
import sys

import bert
import exports
import light
import numpy as np
import onnx
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
LIGHT = pathlib.Path("/usr/share/libonnx-testdata/data/light")  # light_NAME.onnx

BERT = "bert-base"
TORCHVISION = "torchvision-"  # and the network's name there
SETTLE_ROWS = 32  # images that their batch normalization averages over

# Which data sets of ../shared/data a model is calibrated with and fed from.
DATA = {
    "resnet20-cifar10": ("cifar10-calibration", "cifar10-eval"),
    "ic-resnet8-large": ("cifar10-calibration", "cifar10-eval"),
    "vww-mobilenetv1": ("vww-calibration", "vww-eval"),
    "kws-dscnn": ("kws-mfcc-calibration", "kws-mfcc-eval"),
    "mobilenetv2": ("imagenet-calibration", "imagenet10-eval"),
    "shufflenetv2": ("imagenet-calibration", "imagenet10-eval"),
    "squeezenet1.1": ("imagenet-calibration", "imagenet10-eval"),
    "kwt1": ("kws-audio-calibration", "kws-audio-eval"),
    "mnist-8": ("mnist-calibration", "mnist-eval"),
}
# What networks that take images of 224 x 224 are calibrated with and fed from, and how their input maps.
IMAGES = DATA["mobilenetv2"]


class NotMeasured(Exception):
    """Why a model, or its file for a batch, is not there."""


@dataclasses.dataclass
class Model:
    """A network's files. What is None does not exist: then the precision is not measured, or fed random numbers."""

    name: str
    fp32: pathlib.Path | None = None
    int8: pathlib.Path | None = None  # made by others: both sides run this same file
    calibration: pathlib.Path | None = None
    data: pathlib.Path | None = None
    map: pathlib.Path | None = None
    random_weights: bool = False


def existing(path):
    return path if path.is_file() else None


def load():
    """Lists every model there is: the demo's, those beside the checkout, those of ONNX's test data, and those that
    write() makes."""
    demo = ROOT / "demo"
    glyphs = demo / "models/glyphs"
    data = demo / "data"
    models = [Model("glyphs", glyphs / "1/fp32.onnx", None, data / "calibration.npz", data / "test.npz", glyphs / "model.yaml")]
    for folder in sorted(SHARED.glob("models/*/1")):
        model = Model(folder.parent.name, existing(folder / "fp32.onnx"), existing(folder / "int8.onnx"))
        if model.name in DATA:
            model.calibration, model.data = (SHARED / f"data/{name}.npz" for name in DATA[model.name])
            model.map = existing(folder.parent / "model.yaml")
        models.append(model)
    models += [Model(file.stem, random_weights=True) for file in sorted(LIGHT.glob("light_*.onnx"))]
    models += [Model(TORCHVISION + name, random_weights=True) for name in exports.NETWORKS]
    return [*models, Model(BERT, random_weights=True)]


def take_images(model):
    model.calibration, model.data = (existing(SHARED / f"data/{name}.npz") for name in IMAGES)
    model.map = existing(SHARED / "models/mobilenetv2/model.yaml")


def write(model, cache):
    """Makes the files of a model that is not a file anywhere, unless the cache has them."""
    if model.name == BERT:
        model.fp32, model.calibration, model.data = bert.write(cache / BERT)
    elif model.name.startswith(TORCHVISION):
        take_images(model)
        model.fp32 = made(model, cache, exports, [model.name.removeprefix(TORCHVISION)], SETTLE_ROWS)
    elif model.fp32 is None and (LIGHT / f"{model.name}.onnx").is_file():
        take_images(model)
        model.fp32 = made(model, cache, light, [LIGHT / f"{model.name}.onnx"], 1)
        take_reals(model, cache)


def take_reals(model, cache):
    """Puts data sets that hold what the network takes in the place of those that map to it: a map names another network's input."""
    for kind in ("calibration", "data"):
        archive = getattr(model, kind)
        file = cache / "reals" / f"{archive.stem}-{hashlib.sha256(model.map.read_bytes()).hexdigest()[:16]}.npz"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            making = file.with_suffix(".making.npz")
            np.savez(making, inputs=mapped(model, archive))
            making.rename(file)
        setattr(model, kind, file)
    model.map = None


def made(model, cache, module, words, rows):
    """Returns the file that a script writes when it is called with `words`, the first `rows` images and the file's name. Raises
    NotMeasured where the script fails, or the images are not there."""
    if not model.calibration:
        raise NotMeasured("there are no images beside the checkout")
    script = pathlib.Path(module.__file__)
    file = cache / script.stem / f"{model.name}-{hashlib.sha256(script.read_bytes()).hexdigest()[:16]}.onnx"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        making, images = file.with_suffix(".making"), file.with_suffix(".npy")
        np.save(images, mapped(model, model.calibration, rows))
        command = list(map(str, [sys.executable, script, *words, images, making]))
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        images.unlink()
        if done.returncode != 0:
            raise NotMeasured(f"{script.name} fails: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
        making.rename(file)
    return file


def select(models, patterns):
    """Returns the models whose names match a shell pattern; raises ValueError naming a pattern that matches none."""
    for pattern in patterns:
        if not fnmatch.filter([model.name for model in models], pattern):
            raise ValueError(f"no model is called '{pattern}'; there are {', '.join(model.name for model in models)}")
    return [model for model in models if any(fnmatch.fnmatch(model.name, pattern) for pattern in patterns)]


def inputs_of(file):
    """Lists (name, ONNX element type, extents with None where the file leaves them open) of a model's inputs."""
    graph = onnx.load(file, load_external_data=False).graph
    constants = {initializer.name for initializer in graph.initializer}
    found = []
    for value in graph.input:
        if value.name not in constants:
            tensor = value.type.tensor_type
            extents = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
            found.append((value.name, tensor.elem_type, extents))
    return found


def for_batch(file, batch, cache):
    """Returns a file that takes this batch: the same one where it leaves extent 0 open, else a copy that is written for
    it, its input's, outputs' and Reshapes' leading 1 replaced. Raises NotMeasured when that is not all there is to it."""
    (_, _, extents), *others = inputs_of(file)
    if batch == 1 or (extents and extents[0] is None):
        return file
    if others or not extents or extents[0] != 1:
        raise NotMeasured("its file fixes the batch")
    name = hashlib.sha256(f"{batch}".encode() + file.read_bytes()).hexdigest()[:16]
    copy = cache / "batched" / f"{name}.onnx"
    if not copy.is_file():
        copy.parent.mkdir(parents=True, exist_ok=True)
        making = copy.with_suffix(".making")
        onnx.save(_rewritten(onnx.load(file), batch), making)
        making.rename(copy)
    return copy


def _rewritten(model, batch):
    graph = model.graph
    del graph.value_info[:]
    constants = {initializer.name: initializer for initializer in graph.initializer}
    for value in [*graph.input, *graph.output]:
        extents = value.type.tensor_type.shape.dim
        if value.name not in constants and extents and extents[0].dim_value == 1:
            extents[0].dim_value = batch
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape" and len(node.input) > 1}
    for name in shapes & constants.keys():
        shape = onnx.numpy_helper.to_array(constants[name]).copy()
        if shape.size > 1 and shape[0] == 1:
            shape[0] = batch
            constants[name].CopyFrom(onnx.numpy_helper.from_array(shape, name))
    return model


def mapped(model, archive, rows=None):
    """Returns the first rows of a data set as the model's input: real = scale[c] * (q - zero_point[c]) on axis 1."""
    with np.load(archive) as arrays:
        values = arrays["inputs"][:rows]
    wire = {"scale": [1.0], "zero_point": [0.0]}
    if model.map:
        (entry,) = yaml.safe_load(model.map.read_text())["inputs"].values()
        wire = entry["wire"]
    along = (1, -1) + (1,) * (values.ndim - 2)
    scale, zero_point = (np.asarray(wire[key], np.float32).reshape(along) for key in ("scale", "zero_point"))
    return ((values.astype(np.float32) - zero_point) * scale).astype(np.float32)


def feed(model, file, batch):
    """Returns {name: array} of one batch: rows of the model's data set where it has one, else random numbers in [0, 1).
    Raises NotMeasured when extents are open that only a request knows."""
    inputs, random = inputs_of(file), np.random.default_rng(1)
    arrays = {}
    for name, element_type, extents in inputs:
        shape = [batch if extent is None and axis == 0 else extent for axis, extent in enumerate(extents)]
        if None in shape:
            raise NotMeasured(f"its file leaves extents of '{name}' open: {extents}")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(element_type)
        if model.data and len(inputs) == 1 and dtype == np.float32:
            arrays[name] = mapped(model, model.data, batch)
            if list(arrays[name].shape) != shape:
                raise ValueError(f"{model.data.name} holds {arrays[name].shape}, '{name}' takes {shape}")
        else:
            arrays[name] = random.random(shape, np.float32).astype(dtype)
    return arrays
