#!/usr/bin/env python3
"""Sends 300 MB at once to a server with the largest limit that clients set, and has them back.

usage: large_messages_test.py OCTET
"""

import pathlib
import re
import sys
import time
import unittest

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import grpc
import numpy
import onnx
from onnx import TensorProto, helper
from served_client import ServedClient

OCTET = ""
MOST = 2**31 - 1
BYTES = 300 << 20
INFER = "/inference.GRPCInferenceService/ModelInfer"


def write_identity(path):
    """y = x of [1, n] bytes."""
    ends = [helper.make_tensor_value_info(name, TensorProto.UINT8, [1, "n"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", ends[:1], ends[1:])
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8), path)


class LargeMessagesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Each worker keeps the room of its largest run, and which of several takes the next one is theirs to say.
        configuration = f"limits: {{max_message_bytes: {MOST}}}\nworkers: {{count: 1, threads: 1}}\n"
        cls.client = ServedClient(OCTET, {"bytes": write_identity}, configuration=configuration)
        cls.addClassCleanup(cls.client.close)
        cls.server, cls.messages = cls.client.server, cls.client.messages
        cls.data = numpy.random.default_rng(300).integers(0, 256, BYTES, numpy.uint8)

    def resident(self):
        """Returns the MiB that the server has."""
        status = pathlib.Path("/proc", str(self.server.process.pid), "status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) / 1024

    def over_grpc(self):
        request = self.messages.ModelInferRequest(model_name="bytes")
        request.inputs.add(name="x", datatype="UINT8", shape=[1, BYTES])
        request.raw_input_contents.append(self.data.tobytes())
        limits = [("grpc.max_send_message_length", MOST), ("grpc.max_receive_message_length", MOST)]
        with grpc.insecure_channel(self.server.grpc, options=limits) as channel:
            call = channel.unary_unary(
                INFER, self.messages.ModelInferRequest.SerializeToString, self.messages.ModelInferResponse.FromString
            )
            answer = call(request, timeout=120)
        self.assertEqual(list(answer.outputs[0].shape), [1, BYTES])
        self.assertTrue(numpy.array_equal(numpy.frombuffer(answer.raw_output_contents[0], numpy.uint8), self.data))

    def over_rest(self):
        bare = {"Inference-Header-Content-Length": "0"}
        status, headers, body = self.client.ask("POST", "/v2/models/bytes/infer", memoryview(self.data), bare)
        self.assertEqual(status, 200, body[:1000])
        length = int(headers["Inference-Header-Content-Length"])
        self.assertTrue(numpy.array_equal(numpy.frombuffer(body, numpy.uint8, offset=length), self.data))

    def test_both_protocols_carry_it_and_nothing_piles_up(self):
        kept = []
        for protocol in (self.over_grpc, self.over_rest) * 3:
            start = time.monotonic()
            protocol()
            kept.append(self.resident())
            print(f"{protocol.__name__}: {time.monotonic() - start:.1f} s, the server has {kept[-1]:.0f} MiB")
        self.assertLess(max(kept[4:]), max(kept[:4]) + 200, kept)


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
