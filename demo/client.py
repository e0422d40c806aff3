#!/usr/bin/env python3
"""Asks a running Octet to read one of the demo's images: all that a client needs, in Python.

usage: client.py --target HOST:PORT [--image N] [--precision P] [--user KEY]
"""

import argparse
import importlib
import os
import pathlib
import sys
import tempfile
import time

import grpc
import numpy

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROTO = ROOT / "proto/inference.proto"
STUBS = ROOT / "build/demo-stubs"
LABELS = (ROOT / "demo/models/glyphs/labels.txt").read_text().split()
TEST_SET = ROOT / "demo/data/test.npz"


def load_stubs():
    """Returns the modules (messages, services) of the protocol, generated when they are not there or too old."""
    services = STUBS / "inference_pb2_grpc.py"
    if not services.exists() or services.stat().st_mtime < PROTO.stat().st_mtime:
        protoc = importlib.import_module("grpc_tools.protoc")
        STUBS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=STUBS) as fresh:
            words = ["protoc", f"-I{PROTO.parent}", f"--python_out={fresh}", f"--grpc_python_out={fresh}", str(PROTO)]
            if protoc.main(words) != 0:
                raise RuntimeError(f"protoc does not accept {PROTO}")
            for name in ("inference_pb2.py", "inference_pb2_grpc.py"):
                os.replace(pathlib.Path(fresh, name), STUBS / name)
    sys.path.insert(0, str(STUBS))
    return importlib.import_module("inference_pb2"), importlib.import_module("inference_pb2_grpc")


class GlyphReader:
    """Reads images through a server that has the demo's model."""

    def __init__(self, target):
        self.messages, services = load_stubs()
        self.channel = grpc.insecure_channel(target)
        self.stub = services.GRPCInferenceServiceStub(self.channel)

    def request(self, image, precision=None, user=None):
        """Returns the request for one image, uint8 [3, 32, 32]. precision: who is to answer; user: a key that always
        gets the same precision; neither: the split decides."""
        request = self.messages.ModelInferRequest(model_name="glyphs")
        tensor = request.inputs.add(name="image", datatype="UINT8", shape=[1, *image.shape])
        assert tensor.datatype == "UINT8" and image.dtype == numpy.uint8
        request.raw_input_contents.append(image.tobytes())
        if precision:
            request.parameters["precision"].string_param = precision
        if user:
            request.parameters["user"].string_param = user
        return request

    @staticmethod
    def answer(response):
        """Returns (class, precision that answered)."""
        logits = numpy.frombuffer(response.raw_output_contents[0], numpy.float32)
        return int(logits.argmax()), response.parameters["precision"].string_param


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="host:port of the server's gRPC")
    parser.add_argument("--image", type=int, default=0, help="number of the image in demo/data/test.npz")
    parser.add_argument("--precision", help="fp32, fp16, bf16, int8 or int8-dynamic; the split decides when absent")
    parser.add_argument("--user", help="a key that always gets the same precision")
    options = parser.parse_args()
    with numpy.load(TEST_SET) as data:
        count = len(data["labels"])
        if not 0 <= options.image < count:
            parser.error(f"--image {options.image}: expected 0 to {count - 1}")
        image, label = data["inputs"][options.image], LABELS[data["labels"][options.image]]
    reader = GlyphReader(options.target)
    started = time.perf_counter()
    try:
        response = reader.stub.ModelInfer(reader.request(image, options.precision, options.user), timeout=10)
    except grpc.RpcError as error:
        print(f"client: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    milliseconds = 1e3 * (time.perf_counter() - started)
    read, precision = reader.answer(response)
    print(f"image {options.image} shows {label}; {precision} reads {LABELS[read]}, {milliseconds:.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
