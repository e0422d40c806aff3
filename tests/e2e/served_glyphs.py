"""A server of the demo's model in fp32 and int8, and its client, for the tests of what happens beside the answers."""

import importlib
import pathlib
import re
import shutil
import tempfile
import time

import grpc
import onnx
import onnx.numpy_helper
import served_models
from served_client import generate_stubs

IMAGES, TRUTH = served_models.load_test_set()
SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
messages = services = None
_stubs = tempfile.TemporaryDirectory()


def set_up():
    """Makes the client's stubs; to be called as setUpModule."""
    global messages, services
    generate_stubs(pathlib.Path(_stubs.name))
    messages = importlib.import_module("proto.inference_pb2")
    services = importlib.import_module("proto.inference_pb2_grpc")


def tear_down():
    """To be called as tearDownModule."""
    _stubs.cleanup()


def spoil(path):
    """Doubles the scales of a quantized model's weights in every other channel: it loads and runs, and its answers are wrong."""
    model = onnx.load(path)
    spoilt = 0
    names = {node.input[1] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for tensor in model.graph.initializer:
        if tensor.name in names and len(tensor.dims) == 1 and tensor.dims[0] > 1:
            scales = onnx.numpy_helper.to_array(tensor).copy()
            scales[::2] *= 2
            tensor.CopyFrom(onnx.numpy_helper.from_array(scales, tensor.name))
            spoilt += 1
    assert spoilt > 0, [(t.name, t.dims) for t in model.graph.initializer]
    onnx.save(model, path)


class Served:
    """A server of the demo's model in fp32 and int8."""

    model = "glyphs"
    input = "image"
    images = IMAGES

    def __init__(self, octet, routing, change=lambda version: None, configuration=""):
        self._folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self._folder.name)
        models = self.make_repository(octet, folder)
        model_yaml = models / self.model / "model.yaml"
        model_yaml.write_text(model_yaml.read_text() + routing)
        change(models / self.model / "1")
        self.models = models
        self.server = served_models.server.Server(octet, models, folder, configuration)
        self._channel = grpc.insecure_channel(self.server.grpc)
        self.stub = services.GRPCInferenceServiceStub(self._channel)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self._channel.close()
        with self.server:
            self.server.stop()
        self._folder.cleanup()

    def make_repository(self, octet, folder):
        """Returns a folder of models: the one that is served, its version 1 and its model.yaml."""
        models = served_models.make_repository(octet, folder)
        for name in ("nan", "garbage", "hollow"):
            shutil.rmtree(models / name)
        shutil.copy(served_models.GLYPHS / "model.yaml", models / "glyphs")
        return models

    def request(self, number):
        image = self.images[number % len(self.images)]
        request = messages.ModelInferRequest(model_name=self.model)
        request.inputs.add(name=self.input, datatype="UINT8", shape=[1, *image.shape])
        request.raw_input_contents.append(image.tobytes())
        return request

    def ask(self, number, precision=None):
        """Returns the logits of one image, as bytes, and the precision that answered: the one that is asked for."""
        request = self.request(number)
        if precision is not None:
            request.parameters["precision"].string_param = precision
        response = self.stub.ModelInfer(request, timeout=20)
        return response.raw_output_contents[0], response.parameters["precision"].string_param

    def ask_all(self, count):
        return [self.ask(number) for number in range(count)]

    def metrics(self):
        """Returns {(name, labels as written): value}."""
        return {(name, labels): float(value) for name, labels, value in SERIES.findall(self.server.metrics_page())}

    def shadow(self):
        """Returns {name without octet_shadow_: value} of the pair; a label that is more than the pair's is appended."""
        values = {}
        for (name, labels), value in self.metrics().items():
            if name.startswith("octet_shadow_") and 'against="fp32"' in labels:
                more = re.search(r'(?:reason|le)="([^"]*)"', labels)
                values[name.removeprefix("octet_shadow_") + (f" {more[1]}" if more else "")] = value
        return values

    def wait_for_copies(self, count):
        """Returns the pair's metrics once that many copies have run, failed or been dropped."""
        until = time.monotonic() + 30
        while True:
            values = self.shadow()
            dropped = sum(value for name, value in values.items() if name.startswith("dropped_requests_total"))
            ended = values["compared_requests_total"] + values["failed_requests_total"] + dropped
            if ended >= count:
                return values
            if time.monotonic() > until:
                raise AssertionError(f"{ended} of {count} copies ended: {values}")
            time.sleep(0.05)

    def variant(self, name, precision):
        return self.metrics()[name, f'model="glyphs",version="1",precision="{precision}"']
