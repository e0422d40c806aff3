#!/usr/bin/env python3
"""Goes in the middle of everything that a client can begin, while models are reloaded: nothing may be left of it.

usage: rude_clients_test.py OCTET
"""

import contextlib
import json
import multiprocessing.shared_memory
import os
import random
import re
import socket
import struct
import sys
import threading
import time

import grpc
import numpy
import server_test_case
import small_models
from server_test_case import ServerTestCase
from small_models import Caller

sys.path.insert(0, str(small_models.ROOT / "tests/e2e"))
import stateful_models  # noqa: E402

SECONDS = 10
WIDTH = 4096
PAUSES = [0, 0, 0.0005, 0.002, 0.005]
FACTORS = {"net": 2, "chain": 4, "wide": 1}
NET = "routing: {{default: fp32, shadow: {{precision: bf16, percent: {percent}}}}}\ncapture: {{percent: {percent}, max_bytes: 65536}}\n"
CHAIN = "pipeline: {steps: {a: {model: net}, b: {model: net, inputs: {x: a.y}}}, outputs: {y: b.y}}\n"
SUM = "state: {{before: {{output: total}}}}\nsequences: {{idle_seconds: 5, max_sequences: {most}}}\n"
AT_REST = (
    "octet_in_flight_requests octet_queue_depth octet_queue_bytes octet_shadow_queue_depth octet_shadow_queue_bytes "
    "octet_live_sequences octet_sequence_state_bytes octet_sequence_waiting_requests"
).split()
SERIES = re.compile(r"^(\w+)(\{.*\})? (\S+)$", re.MULTILINE)
GIVEN_UP = (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)


class Client(threading.Thread):
    """Begins something, and leaves it, again and again."""

    def __init__(self, running, seed):
        super().__init__()
        self.running, self.seed = running, seed
        self.random = random.Random(seed)
        self.stopped = threading.Event()
        self.rounds, self.answers, self.wrong = 0, 0, []

    def run(self):
        try:
            while not self.stopped.is_set():
                self.go()
                self.rounds += 1
        except Exception as error:  # noqa: BLE001
            self.wrong.append(repr(error))

    def go(self):
        raise NotImplementedError

    def pause(self):
        time.sleep(self.random.choice(PAUSES))

    @contextlib.contextmanager
    def caller(self):
        """A connection of its own."""
        caller = Caller(self.running.grpc, [("grpc.use_local_subchannel_pool", 1)])
        with caller.channel:
            yield caller

    def ask(self, caller):
        """Returns a request and what its answer must be."""
        model = self.random.choice(list(FACTORS))
        columns = WIDTH if model == "wide" else small_models.EXTENT
        rows = self.random.choice([1, 2, 8])
        x = numpy.full((rows, columns), self.random.randint(1, 99), numpy.float32)
        request = caller.messages.ModelInferRequest(model_name=model)
        request.inputs.add(name="x", datatype="FP32", shape=x.shape)
        request.raw_input_contents.append(x.tobytes())
        return request, (FACTORS[model] * x).tobytes()

    def check(self, response, expected):
        self.answers += 1
        if response.raw_output_contents[0] != expected:
            self.wrong.append(f"{response.model_name}: a wrong answer")

    def result(self, call, expected):
        """Takes the answer of a call that was perhaps given up."""
        try:
            self.check(call.result(), expected)
        except grpc.FutureCancelledError:
            return
        except grpc.RpcError as error:
            if error.code() not in GIVEN_UP:
                self.wrong.append(str(error))


class Canceller(Client):
    def go(self):
        with self.caller() as caller:
            for _ in range(20):
                request, expected = self.ask(caller)
                late = self.random.random() < 0.3
                call = caller.stub.ModelInfer.future(request, timeout=self.random.choice([0.001, 0.003]) if late else 30)
                if self.random.random() < 0.6:
                    self.pause()
                    call.cancel()
                self.result(call, expected)


class StreamBreaker(Client):
    def go(self):
        with self.caller() as caller:
            asked = [self.ask(caller) for _ in range(24)]
            call = caller.stub.ModelStreamInfer(iter([request for request, _ in asked]), timeout=30)
            for (_, expected), answer in zip(asked[: self.random.randint(0, 24)], call, strict=False):
                self.check(answer.infer_response, expected)
            call.cancel()


class ChannelCloser(Client):
    def go(self):
        with self.caller() as caller:
            for _ in range(6):
                caller.stub.ModelInfer.future(self.ask(caller)[0], timeout=30)
            caller.stub.ModelStreamInfer(iter([self.ask(caller)[0] for _ in range(6)]), timeout=30)
            self.pause()


class SocketCloser(Client):
    """Over HTTP: breaks off its request, resets the connection, sends several requests at once and reads no answer."""

    def request(self):
        x = numpy.ones((4, WIDTH), numpy.float32)
        named = {"name": "x", "datatype": "FP32", "shape": x.shape, "parameters": {"binary_data_size": x.nbytes}}
        text = json.dumps({"inputs": [named], "parameters": {"binary_data_output": True}}).encode()
        lengths = f"Inference-Header-Content-Length: {len(text)}\r\nContent-Length: {len(text) + x.nbytes}\r\n"
        return f"POST /v2/models/wide/infer HTTP/1.1\r\nHost: octet\r\n{lengths}\r\n".encode() + text + x.tobytes()

    def go(self):
        host, _, port = self.running.http.rpartition(":")
        request = self.request()
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=30) as client:
            way = self.random.randint(0, 3)
            client.sendall(request[: self.random.randint(1, len(request))] if way == 0 else request * way)
            self.pause()
            if self.random.random() < 0.5:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class SequenceLeaver(Client):
    """Gives up requests of a sequence, each of which then counts, now or behind the next ones, or does not; ends none."""

    def go(self):
        with self.caller() as caller:
            identity = (self.seed << 20) + self.rounds + 1
            answered, given_up = 0.0, {0.0}  # the sum of what was answered, and what the others may add to it
            for step in range(8):
                request = caller.messages.ModelInferRequest(model_name="sum")
                request.inputs.add(name="x", datatype="FP32", shape=[1, 1])
                value = float(self.random.randint(1, 9))
                request.raw_input_contents.append(numpy.float32(value).tobytes())
                request.parameters["sequence_id"].int64_param = identity
                request.parameters["sequence_start"].bool_param = step == 0
                call = caller.stub.ModelInfer.future(request, timeout=30)
                if step in (2, 3, 7):
                    self.pause()
                    call.cancel()
                    given_up |= {more + value for more in given_up}
                    continue
                answered += value
                (total,) = numpy.frombuffer(call.result().raw_output_contents[0], numpy.float32).tolist()
                self.answers += 1
                if total - answered not in given_up:
                    self.wrong.append(f"a sum is {total}, expected {answered} and one of {given_up}")


class RegionLeaver(Client):
    """Takes shared memory away while requests read and write it."""

    BYTES = WIDTH * 4

    def go(self):
        name = f"region {self.seed}"
        memory = multiprocessing.shared_memory.SharedMemory(create=True, size=2 * self.BYTES)
        try:
            with self.caller() as caller:
                messages, stub = caller.messages, caller.stub
                size = {"byte_size": 2 * self.BYTES}
                stub.SystemSharedMemoryRegister(messages.SystemSharedMemoryRegisterRequest(name=name, key=f"/{memory.name}", **size), timeout=30)
                request = messages.ModelInferRequest(model_name="wide")
                tensors = [request.inputs.add(name="x", datatype="FP32", shape=[1, WIDTH]), request.outputs.add(name="y")]
                for place, tensor in enumerate(tensors):
                    tensor.parameters["shared_memory_region"].string_param = name
                    tensor.parameters["shared_memory_byte_size"].int64_param = self.BYTES
                    tensor.parameters["shared_memory_offset"].int64_param = place * self.BYTES
                memory.buf[: self.BYTES] = os.urandom(self.BYTES)
                calls = [stub.ModelInfer.future(request, timeout=30) for _ in range(4)]
                self.pause()
                stub.SystemSharedMemoryUnregister(messages.SystemSharedMemoryUnregisterRequest(name=name), timeout=30)
                self.take(calls, memory)
        finally:
            memory.close()
            memory.unlink()

    def take(self, calls, memory):
        """Each found the region, and was answered into it, or did not."""
        for call in calls:
            error = call.exception()
            if error is None:
                self.answers += 1
            elif error.code() != grpc.StatusCode.NOT_FOUND:
                self.wrong.append(str(error))
        if any(call.exception() is None for call in calls) and memory.buf[: self.BYTES] != memory.buf[self.BYTES :]:
            self.wrong.append("a wrong answer in shared memory")


CLIENTS = [Canceller] * 3 + [StreamBreaker] * 2 + [ChannelCloser, SocketCloser, SocketCloser] + [SequenceLeaver] * 2 + [RegionLeaver] * 2


class RudeClientsTest(ServerTestCase):
    def write_config(self, model, text):
        part = self.models / model / ".model.yaml"
        part.write_text(text)
        part.rename(self.models / model / "model.yaml")

    def prepare(self):
        """Writes the models; returns the server's configuration."""
        for precision in ("fp32", "bf16"):
            small_models.write_scaling(self.models / f"net/1/{precision}.onnx", FACTORS["net"])
        small_models.write_identity(self.models / "wide/1/fp32.onnx")
        self.write_config("wide", "batching: {max_queue_delay_us: 500}\n")
        stateful_models.write_sum(self.models / "sum/1/fp32.onnx")
        (self.models / "chain").mkdir()
        self.write_config("chain", CHAIN)
        self.change_configs(0)
        captures = self.folder / "captures"
        captures.mkdir()
        return f"capture: {{path: '{captures}', write_seconds: 1}}\n"

    def change_configs(self, number):
        self.write_config("net", NET.format(percent=50 + number % 50))
        self.write_config("sum", SUM.format(most=8192 + number % 50))

    def reload_meanwhile(self, running):
        """Returns how often."""
        caller, number, until = Caller(running.grpc), 0, time.monotonic() + SECONDS
        with caller.channel:
            while time.monotonic() < until:
                number += 1
                self.change_configs(number)
                caller.load("net")
                caller.load("sum")
                time.sleep(0.05)
        return number

    def left(self, running):
        """Returns what of the metrics is not at rest."""
        return [(name, labels, value) for name, labels, value in SERIES.findall(running.metrics_page()) if name in AT_REST and float(value) != 0]

    @staticmethod
    def open_files(process):
        return len(os.listdir(f"/proc/{process}/fd"))

    def wait_for_files(self, running, servers, clients):
        """Waits until no more are open than the counts, the server's and the clients', say. grpcio keeps connections of channels
        that were closed while they were being opened: for as long as they are open there, they are here."""
        self.wait_until(
            lambda: self.open_files(running.process.pid) - servers <= max(0, self.open_files("self") - clients) + 4,
            f"{servers} open files, as before",
        )

    def test_nothing_is_left_of_what_was_given_up(self):
        seed = int(time.time())
        print("seed", seed)
        running = self.start(self.prepare(), "shared_memory: true")
        files = self.open_files(running.process.pid), self.open_files("self")
        clients = [kind(running, seed + number) for number, kind in enumerate(CLIENTS)]
        for client in clients:
            client.start()
        reloads = self.reload_meanwhile(running)
        for client in clients:
            client.stopped.set()
        for client in clients:
            client.join()
        print(reloads, "reloads;", {f"{type(client).__name__} {client.seed - seed}": (client.rounds, client.answers) for client in clients})
        for client in clients:
            self.assertEqual(client.wrong[:1], [], type(client).__name__)
            self.assertGreater(client.rounds, 0, type(client).__name__)
        self.assertGreater(reloads, 5)
        self.wait_until(lambda: not self.left(running), f"metrics at rest: {AT_REST}")
        self.wait_for_files(running, *files)
        self.assertEqual(Caller(running.grpc).ask("net"), FACTORS["net"])
        running.stop()
        self.assertIn("event=stopped all_answered=true", running.log.read_text())


if __name__ == "__main__":
    server_test_case.main()
