#!/usr/bin/env python3
"""Exports a torchvision network as torchvision's users do, with random weights: speed does not depend on what it was
trained for.

usage: exports.py NAME IMAGES FILE     (a process of its own: the framework keeps gigabytes)

Input "input" is [N, 3, 224, 224] with N left open. Batch normalization gets the statistics of IMAGES (.npy, as the network
takes them), as training would leave them: without, a deep network's activations vanish or overflow, and int8 would be judged
on noise.
"""

import sys

import numpy as np

NETWORKS = ("resnet50", "mobilenet_v2", "efficientnet_b0")
OPSET = 17
BATCH = 8


def settle(model, images, torch, torchvision):
    """Runs the images through the model in training mode, so that batch normalization averages over them."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain average
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, torchvision.ops.StochasticDepth):
            module.p = 0.0
    model.train()
    with torch.no_grad():
        for first in range(0, len(images), BATCH):
            model(torch.from_numpy(images[first : first + BATCH]))
    model.eval()


def export(name, images, file):
    import torch
    import torchvision

    torch.manual_seed(1)
    model = getattr(torchvision.models, name)(weights=None)
    settle(model, np.load(images), torch, torchvision)
    torch.onnx.export(
        model,
        torch.zeros(1, 3, 224, 224),
        file,
        opset_version=OPSET,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
        dynamo=False,
    )


if __name__ == "__main__":
    export(*sys.argv[1:])
