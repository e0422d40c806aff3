"""A server over models that a test writes, and a grpcio client of it."""

import importlib
import pathlib
import sys
import tempfile

import grpc
import served_models

PROTOS = ["proto/inference.proto", "proto/health.proto"]


def generate_stubs(out):
    """Makes the modules of PROTOS importable."""
    protoc = importlib.import_module("grpc_tools.protoc")
    words = ["protoc", f"-I{served_models.ROOT}", f"--python_out={out}", f"--grpc_python_out={out}", *PROTOS]
    if protoc.main(words) != 0:
        raise RuntimeError(f"protoc does not accept {PROTOS}")
    sys.path.insert(0, str(out))


class ServedClient:
    """folder: a pathlib.Path with models/; server: a demo server.Server; stub and messages: of proto/inference.proto."""

    def __init__(self, octet, writers):
        """writers: {model name: function that writes its ONNX file to a path}."""
        self._folder = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self._folder.name)
        generate_stubs(self.folder)
        self.messages = importlib.import_module("proto.inference_pb2")
        for name, write in writers.items():
            write(self.folder / f"models/{name}/1/fp32.onnx")
        self.server = served_models.server.Server(octet, self.folder / "models", self.folder, "")
        self._channel = grpc.insecure_channel(self.server.grpc)
        service = importlib.import_module("proto.inference_pb2_grpc")
        self.stub = service.GRPCInferenceServiceStub(self._channel)

    def close(self):
        self._channel.close()
        with self.server:
            self.server.stop()
        self._folder.cleanup()
