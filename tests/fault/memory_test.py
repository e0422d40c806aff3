#!/usr/bin/env python3
"""Sends more than a server may keep, and looks at what it took (VmHWM).

usage: memory_test.py OCTET
"""

import concurrent.futures
import pathlib
import re

import grpc
import server_test_case
from server_test_case import ServerTestCase
from small_models import Caller, write_scaling

MEBI = 1 << 20
INFER = "/inference.GRPCInferenceService/ModelInfer"


def field(number, value):
    """Returns a field of bytes as protobuf writes it."""
    size, length = b"", len(value)
    while length > 127:
        size += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + value


class MemoryTest(ServerTestCase):
    def setUp(self):
        super().setUp()
        write_scaling(self.models / "double/1/fp32.onnx", 2)

    def send(self, running, message, **options):
        """Returns the code that a ModelInfer with these bytes ends with, and the text."""
        with grpc.insecure_channel(running.grpc, options=[("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]) as channel:
            call = channel.unary_unary(INFER, request_serializer=bytes, response_deserializer=bytes)
            try:
                call(message, timeout=60, **options)
            except grpc.RpcError as error:
                return error.code(), error.details()
        return grpc.StatusCode.OK, ""

    def grown(self, running, do):
        """Returns what `do` returns, and the MiB that the server has at most taken meanwhile."""
        process = pathlib.Path("/proc", str(running.process.pid))

        def peak():
            return int(re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text()).group(1)) / 1024

        (process / "clear_refs").write_text("5")
        before = peak()
        result = do()
        return result, peak() - before

    def serves(self, running):
        caller = Caller(running.grpc)
        self.assertEqual(caller.ask("double"), 2)

    def test_what_grows_when_it_is_read_is_refused_before(self):
        running = self.start(f"limits: {{max_message_bytes: {8 * MEBI}}}\n")
        self.serves(running)
        tensor = field(1, b"x") + field(2, b"BYTES") + field(3, b"\1")
        parameters = b"".join(field(4, field(1, b"%x" % i)) for i in range(1 << 18))
        for name, message, options in (
            ("compressed", field(7, bytes(200 * MEBI)), {"compression": grpc.Compression.Gzip}),
            ("compressed and unknown", field(15, bytes(200 * MEBI)), {"compression": grpc.Compression.Deflate}),
            ("strings", field(5, tensor + field(5, b"\x42\0" * (3 * MEBI))), {}),
            ("parameters", field(5, tensor + parameters), {}),
            ("extents", field(5, tensor + field(3, b"\1" * (7 * MEBI))), {}),
            ("unknown fields", field(5, tensor + b"\x78\1" * (3 * MEBI)), {}),
        ):
            with self.subTest(name):
                (code, text), grown = self.grown(running, lambda m=message, o=options: self.send(running, field(1, b"double") + m, **o))
                print(f"{name}: {grown:.0f} MiB")
                self.assertIn(code, (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED), text)
                self.assertLess(grown, 40)
        self.serves(running)
        running.stop()

    def test_many_large_messages_are_cut_off(self):
        running = self.start(f"limits: {{max_message_bytes: {8 * MEBI}, max_receive_bytes: {64 * MEBI}}}\n")
        self.serves(running)
        message = field(7, bytes(200 * MEBI))

        def flood():
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                return list(pool.map(lambda _: self.send(running, message), range(4)))

        codes, grown = self.grown(running, flood)
        print(f"{grown:.0f} MiB, {codes}")
        self.assertNotIn(grpc.StatusCode.OK, [code for code, _ in codes])
        self.assertLess(grown, 200)
        self.serves(running)
        running.stop()


if __name__ == "__main__":
    server_test_case.main()
