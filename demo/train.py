#!/usr/bin/env python3
"""Trains the demo's glyph classifier and writes it, with its data, where `octet serve` finds them.

Renders the three sets (generate.py), trains a small residual network on the CPU, measures it on the
test set and writes, all under demo/:

    data/{calibration,test}.npz    the two sets that are part of the checkout
    models/glyphs/1/fp32.onnx      the network, batch normalization kept as its own nodes
    models/glyphs/labels.txt       the class of each output, one a line

The ONNX graph is written node by node rather than with torch.onnx.export, which folds the batch
normalization away (work that an inference engine should be seen doing) and names nodes its own way.
"""

import argparse
import collections
import pathlib
import time

import numpy as np
import onnx
import onnx.reference
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

import generate

MODEL_FOLDER = pathlib.Path(__file__).resolve().parent / "models" / "glyphs"
OPSET = 15  # the newest definition of BatchNormalization
IR_VERSION = 8  # the one that came with it

# What the network sees of a byte q on the wire: SCALE * (q - ZERO_POINT), from -1 to 1.
# models/glyphs/model.yaml tells the server the same.
SCALE = 1 / 127.5
ZERO_POINT = 127.5

STEM_CHANNELS = 16
BLOCKS = ((32, 2), (32, 1), (64, 2), (64, 1), (64, 1))  # output channels, stride

EPOCHS = 6
BATCH = 128
PEAK_LEARNING_RATE = 4e-3
WEIGHT_DECAY = 0.05
LABEL_SMOOTHING = 0.05


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that pads to keep the size; its bias is the batch normalization's to give."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class Block(nn.Module):
    """relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)), after He et al., arXiv:1512.03385.

    The shortcut is x itself, or a 1x1 convolution with its own bn where the shape changes.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.shortcut_conv = self.shortcut_bn = None
        if stride != 1 or inputs != outputs:
            self.shortcut_conv = conv(inputs, outputs, 1, stride)
            self.shortcut_bn = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.shortcut_conv is not None:
            x = self.shortcut_bn(self.shortcut_conv(x))
        return functional.relu(y + x)


class Classifier(nn.Module):
    """Image [N, 3, 32, 32] of -1..1 -> logits [N, classes]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem_conv, self.stem_bn = conv(3, STEM_CHANNELS, 3), nn.BatchNorm2d(STEM_CHANNELS)
        channels, blocks = STEM_CHANNELS, []
        for outputs, stride in BLOCKS:
            blocks.append(Block(channels, outputs, stride))
            channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.classifier = nn.Linear(channels, len(generate.CLASSES))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        image = image.contiguous(memory_format=torch.channels_last)  # the fastest on a CPU
        x = functional.relu(self.stem_bn(self.stem_conv(image)))
        for block in self.blocks:
            x = block(x)
        return self.classifier(x.mean((2, 3)))


def to_network(images: torch.Tensor) -> torch.Tensor:
    """Maps uint8 images as they are on the wire to the network's input."""
    return (images.float() - ZERO_POINT) * SCALE


def vary(images: torch.Tensor) -> torch.Tensor:
    """Shifts each uint8 image by up to two pixels, shuffles its channels and inverts it or not.

    Neither place nor colour tells anything of the class, so one image does for many.
    """
    count, _, height, width = images.shape
    padded = functional.pad(images.float(), (2, 2, 2, 2), mode="replicate").to(images.dtype)
    top, left = torch.randint(5, (2, count, 1, 1, 1))
    rows = top + torch.arange(height)[:, None]
    columns = left + torch.arange(width)
    channels = torch.rand(count, 3).argsort(1)[..., None, None]
    varied = padded[torch.arange(count)[:, None, None, None], channels, rows, columns]
    return torch.where(torch.rand(count, 1, 1, 1) < 0.5, 255 - varied, varied)


@torch.inference_mode()
def classify(network: Classifier, images: np.ndarray) -> np.ndarray:
    """Returns the class of each uint8 image."""
    network.eval()
    parts = [network(to_network(part)).argmax(1) for part in torch.as_tensor(images).split(256)]
    return torch.cat(parts).numpy()


def train(images: np.ndarray, labels: np.ndarray, epochs: int) -> Classifier:
    """Trains a new network: AdamW under a one-cycle learning rate."""
    network = Classifier().to(memory_format=torch.channels_last)
    images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    steps = len(images) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, epochs=epochs, steps_per_epoch=steps, pct_start=0.2
    )
    for epoch in range(epochs):
        started, total_loss, hits = time.monotonic(), 0.0, 0
        network.train()
        for picked in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
            logits = network(to_network(vary(images[picked])))
            loss = functional.cross_entropy(
                logits, labels[picked], label_smoothing=LABEL_SMOOTHING
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total_loss += loss.item()
            hits += int((logits.argmax(1) == labels[picked]).sum())
        print(
            f"epoch {epoch + 1:2}/{epochs}: loss {total_loss / steps:.4f}, "
            f"training accuracy {hits / (steps * BATCH):.2%}, "
            f"{time.monotonic() - started:.0f} s",
            flush=True,
        )
    return network


class GraphWriter:
    """Collects the nodes and weights of an ONNX graph; each method returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, op_type: str, name: str, *inputs: str, output: str = "", **attributes) -> str:
        output = output or f"{name}.output"
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=name, **attributes))
        return output

    def weight(self, name: str, tensor: torch.Tensor) -> str:
        array = np.ascontiguousarray(tensor.detach().numpy())  # channels-last in memory until here
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def conv_bn(self, prefix: str, x: str, layer: nn.Conv2d, bn: nn.BatchNorm2d) -> str:
        y = self.node(
            "Conv",
            f"{prefix}.conv",
            x,
            self.weight(f"{prefix}.conv.weight", layer.weight),
            kernel_shape=layer.kernel_size,
            strides=layer.stride,
            pads=layer.padding * 2,
        )
        values = {
            "scale": bn.weight,
            "bias": bn.bias,
            "mean": bn.running_mean,
            "variance": bn.running_var,
        }
        parameters = [self.weight(f"{prefix}.bn.{name}", t) for name, t in values.items()]
        return self.node("BatchNormalization", f"{prefix}.bn", y, *parameters, epsilon=bn.eps)

    def block(self, prefix: str, x: str, block: Block) -> str:
        y = self.conv_bn(f"{prefix}.1", x, block.conv1, block.bn1)
        y = self.node("Relu", f"{prefix}.1.relu", y)
        y = self.conv_bn(f"{prefix}.2", y, block.conv2, block.bn2)
        if block.shortcut_conv is not None:
            x = self.conv_bn(f"{prefix}.shortcut", x, block.shortcut_conv, block.shortcut_bn)
        y = self.node("Add", f"{prefix}.add", y, x)
        return self.node("Relu", f"{prefix}.relu", y)


def to_onnx(network: Classifier) -> onnx.ModelProto:
    """Writes the network as an ONNX model with a free batch dimension."""
    graph = GraphWriter()
    x = graph.conv_bn("stem", "image", network.stem_conv, network.stem_bn)
    x = graph.node("Relu", "stem.relu", x)
    for number, block in enumerate(network.blocks, start=1):
        x = graph.block(f"block{number}", x, block)
    x = graph.node("GlobalAveragePool", "pool", x)
    x = graph.node("Flatten", "flatten", x, axis=1)
    weight = graph.weight("classifier.weight", network.classifier.weight)
    bias = graph.weight("classifier.bias", network.classifier.bias)
    graph.node("Gemm", "classifier", x, weight, bias, output="logits", transB=1)

    image = ["N", 3, generate.SIZE, generate.SIZE]
    logits = ["N", len(generate.CLASSES)]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "glyphs",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, image)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, logits)],
            graph.weights,
            doc_string="Which of 32 digits and capitals an image shows.",
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="octet demo/train.py",
    )
    helper.set_model_props(model, {"labels": generate.CLASSES})
    onnx.checker.check_model(model, full_check=True)
    return model


def check_same_answers(network: Classifier, model: onnx.ModelProto, images: np.ndarray) -> None:
    """Raises AssertionError unless ONNX's reference implementation answers as PyTorch does."""
    network.eval()
    batch = to_network(torch.as_tensor(images))
    with torch.inference_mode():
        expected = network(batch).numpy()
    got = onnx.reference.ReferenceEvaluator(model).run(None, {"image": batch.numpy()})[0]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def count_multiply_adds(network: Classifier) -> int:
    """Counts the multiply-adds of the convolutions and the classifier for one image."""
    total = 0

    def count(layer: nn.Module, _, output: torch.Tensor) -> None:
        nonlocal total
        total += output[0].numel() * layer.weight[0].numel()

    layers = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.inference_mode():
        network.eval()(torch.zeros(1, 3, generate.SIZE, generate.SIZE))
    for hook in hooks:
        hook.remove()
    return total


def write_model(model: onnx.ModelProto) -> pathlib.Path:
    """Writes the model and its labels into the model's folder; returns the model's path."""
    path = MODEL_FOLDER / "1" / "fp32.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    (MODEL_FOLDER / "labels.txt").write_text("".join(f"{name}\n" for name in generate.CLASSES))
    return path


def print_figures(network: Classifier, images: np.ndarray, labels: np.ndarray) -> None:
    """Prints the accuracy on the test set, and which classes are mistaken for which."""
    answers = classify(network, images)
    print(f"test accuracy {(answers == labels).mean():.2%} on {len(labels):,} images")
    mistakes = collections.Counter(
        f"{generate.CLASSES[label]} for {generate.CLASSES[answer]}"
        for label, answer in zip(labels, answers)
        if label != answer
    )
    print("most common mistakes:", ", ".join(f"{k} ({n})" for k, n in mistakes.most_common(8)))
    parameters = sum(p.numel() for p in network.parameters())
    print(f"{parameters:,} parameters, {count_multiply_adds(network):,} multiply-adds per image")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo's glyph classifier.")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    started = time.monotonic()
    generate.write_set(generate.CALIBRATION, generate.DATA_FOLDER / "calibration.npz")
    test_images, test_labels = generate.write_set(generate.TEST, generate.DATA_FOLDER / "test.npz")
    images, labels = generate.render_set(generate.TRAINING)
    print(f"{len(images):,} training images", flush=True)

    network = train(images, labels, arguments.epochs)
    print_figures(network, test_images, test_labels)
    model = to_onnx(network)
    check_same_answers(network, model, test_images[:16])
    path = write_model(model)
    print(f"{path}: {path.stat().st_size:,} bytes, after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
