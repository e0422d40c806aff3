"""Trained models and labelled data beside the checkout, which are no part of the project."""

import collections
import os
import pathlib
import sys

from octet_process import ROOT

SHARED = pathlib.Path(os.environ.get("OCTET_SHARED", ROOT.parent / "shared"))
SKIPPED = 77  # what ctest takes for "skipped"


class Model(collections.namedtuple("Model", "name eval calibration")):
    """One folder of ../shared/models; `eval` and `calibration` name its sets in ../shared/data."""

    @property
    def folder(self):
        return SHARED / "models" / self.name

    @property
    def fp32(self):
        return self.folder / "1" / "fp32.onnx"

    @property
    def shipped_int8(self):
        return self.folder / "1" / "int8.onnx"

    @property
    def map(self):
        return self.folder / "model.yaml"

    @property
    def eval_data(self):
        return SHARED / "data" / f"{self.eval}-eval.npz"

    @property
    def calibration_data(self):
        return SHARED / "data" / f"{self.calibration}-calibration.npz"

    def golden(self, precision):
        """The folder of test_data_set_* folders; models with one precision keep them one level higher."""
        folder = self.folder / "golden" / precision
        return folder if folder.is_dir() else self.folder / "golden"


MODELS = {
    model.name: model
    for model in (
        Model("resnet20-cifar10", "cifar10", "cifar10"),
        Model("ic-resnet8-large", "cifar10", "cifar10"),
        Model("squeezenet1.1", "imagenet10", "imagenet"),
        Model("mobilenetv2", "imagenet10", "imagenet"),
        Model("vww-mobilenetv1", "vww", "vww"),
        Model("kws-dscnn", "kws-mfcc", "kws-mfcc"),
        Model("mnist-8", "mnist", "mnist"),
        Model("kwt1", "kws-audio", "kws-audio"),
    )
}


def skip_when_absent():
    """Ends the test in one line where the models are not here."""
    if not (SHARED / "models").is_dir():
        print(f"skipped: no real models in {SHARED}")
        sys.exit(SKIPPED)
