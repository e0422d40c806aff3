"""A server over models that a test writes, and a client of it: grpcio's, and http.client."""

import http.client
import importlib
import json
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
    """folder: a pathlib.Path with models/; server: a demo server.Server; stub and messages: of proto/inference.proto, over `channel`."""

    def __init__(self, octet, writers=(), fill=lambda folder: None, configuration="", listen="", options=()):
        """writers: {model name: function that writes its ONNX file to a path}; fill: puts what else is to be there into the folder.

        configuration, listen: as server.Server takes them; options: of the channel.
        """
        self._folder = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self._folder.name)
        generate_stubs(self.folder)
        self.messages = importlib.import_module("proto.inference_pb2")
        fill(self.folder)
        for name, write in dict(writers).items():
            write(self.folder / f"models/{name}/1/fp32.onnx")
        self.server = served_models.server.Server(octet, self.folder / "models", self.folder, configuration, listen)
        self.channel = grpc.insecure_channel(self.server.grpc, options=options)
        service = importlib.import_module("proto.inference_pb2_grpc")
        self.stub = service.GRPCInferenceServiceStub(self.channel)

    def ask(self, method, path, body=None, headers=None, connection=None):
        """Returns (status, headers, body) of one request over HTTP, on a connection of its own where none is given."""
        own = connection is None
        connection = connection or http.client.HTTPConnection(self.server.http, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            if own:
                connection.close()

    def ask_json(self, method, path, body=None):
        """Returns (status, value); body: a value, or None for none."""
        status, _, text = self.ask(method, path, None if body is None else json.dumps(body))
        return status, json.loads(text)

    def close(self):
        self.channel.close()
        with self.server:
            self.server.stop()
        self._folder.cleanup()
