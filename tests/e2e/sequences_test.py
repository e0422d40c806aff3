#!/usr/bin/env python3
"""Sequences of a speech detector with state, by several clients at once over gRPC, a stream and REST, held against the model
run step by step with its state passed by hand.

usage: sequences_test.py OCTET
"""

import concurrent.futures
import json
import re
import shutil
import subprocess
import sys
import time
import unittest
import urllib.error
import urllib.request
import zlib

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import grpc
import numpy
import onnxruntime
from real_models import SHARED, skip_when_absent
from served_client import ServedClient
from stateful_models import read_chunk, write_batching_vad, write_sum

OCTET = ""
VAD = SHARED / "models/silero-vad"
STEPS = 8
WAIT_SECONDS = 30
# Of a probability: the order of sums differs, and of bf16 what a batch of another size rounds.
TOLERANCE = {"fp32": 1e-5, "bf16": 5e-3}
client = stub = messages = None


def write_vad(path):
    """The model for batches, fp32 and bf16, with its state kept by the server."""
    write_batching_vad(VAD / "1/fp32.onnx", path)
    words = [OCTET, "quantize", path, "--to", "bf16", "--out", path.parent]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, timeout=120)
    (path.parent.parent / "model.yaml").write_text("state: {state: {output: stateN}}\n")


def write_explicit(path):
    """The same files, whose clients bring the state."""
    shutil.copytree(path.parents[2] / "vad/1", path.parent)


def write_shipped(path):
    """The model as it is published: for one chunk at a time."""
    path.parent.mkdir(parents=True)
    shutil.copy(VAD / "1/fp32.onnx", path)
    (path.parent.parent / "model.yaml").write_text("state: {state: {output: stateN}}\n")


def chunks(identity):
    """Returns STEPS chunks of real sound, each [1, 576], in an order of the sequence's own."""
    paths = sorted(VAD.glob("golden/test_data_set_*/input_0.pb"))
    order = numpy.random.default_rng(zlib.crc32(str(identity).encode())).permutation(len(paths))
    return [read_chunk(paths[place]) for place in order][:STEPS]


def parameters(identity, step, precision=None, last=STEPS - 1):
    """Returns the request parameters of a sequence's step."""
    found = {"sequence_id": identity}
    if step == 0:
        found["sequence_start"] = True
        if precision:
            found["precision"] = precision
    if step == last:
        found["sequence_end"] = True
    return found


def make_request(model, tensors, given):
    request = messages.ModelInferRequest(model_name=model)
    for name, values in tensors.items():
        tensor = request.inputs.add()
        tensor.name, tensor.datatype = name, "FP32"
        tensor.shape.extend(values.shape)
        request.raw_input_contents.append(values.astype(numpy.float32).tobytes())
    for name, value in given.items():
        field = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
        setattr(request.parameters[name], field, value)
    return request


def first_output(response):
    return float(numpy.frombuffer(response.raw_output_contents[0], numpy.float32)[0])


def ask_rest(model, name, values, given):
    """Returns the HTTP status and the JSON."""
    tensor = {"name": name, "datatype": "FP32", "shape": list(values.shape), "data": values.ravel().tolist()}
    body = json.dumps({"inputs": [tensor], "parameters": given}).encode()
    try:
        with urllib.request.urlopen(f"http://{client.server.http}/v2/models/{model}/infer", body, timeout=30) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def metric(name, **labels):
    """Returns the sum of the series with these labels."""
    found = 0.0
    for series, value in re.findall(rf"^{name}{{(.*)}} (\S+)$", client.server.metrics_page(), re.MULTILINE):
        if all(f'{label}="{wanted}"' in series for label, wanted in labels.items()):
            found += float(value)
    return found


def expected_by_onnxruntime(sounds):
    """Returns the answers and what they would be without a state."""
    session = onnxruntime.InferenceSession(str(VAD / "1/fp32.onnx"), providers=["CPUExecutionProvider"])
    zeros = numpy.zeros((2, 1, 128), numpy.float32)
    state, answers, forgetful = zeros, [], []
    for sound in sounds:
        forgetful.append(float(session.run(None, {"input": sound, "state": zeros})[0][0, 0]))
        answer, state = session.run(None, {"input": sound, "state": state})
        answers.append(float(answer[0, 0]))
    return answers, forgetful


def expected_by_hand(sounds, precision):
    """Returns the answers of the same file in this precision to a client that brings the state itself."""
    state, answers = numpy.zeros((1, 2, 128), numpy.float32), []
    for sound in sounds:
        response = stub.ModelInfer(make_request("explicit", {"input": sound, "state": state}, {"precision": precision}), timeout=30)
        answers.append(first_output(response))
        state = numpy.frombuffer(response.raw_output_contents[1], numpy.float32).reshape(1, 2, 128)
    return answers


def by_calls(model, identities, precision):
    """Interleaves sequences over unary calls; returns the answers of each."""
    sounds = {identity: chunks(identity) for identity in identities}
    answers = {identity: [] for identity in identities}
    for step in range(STEPS):
        for identity in identities:
            request = make_request(model, {"input": sounds[identity][step]}, parameters(identity, step, precision))
            response = stub.ModelInfer(request, timeout=30)
            assert response.parameters["precision"].string_param == precision
            answers[identity].append(first_output(response))
    return answers


def by_stream(model, identities, precision):
    """Sends everything at once, interleaved, and reads the answers as they come."""
    sounds = {identity: chunks(identity) for identity in identities}
    order = [(step, identity) for step in range(STEPS) for identity in identities]
    requests = (make_request(model, {"input": sounds[i][step]}, parameters(i, step, precision)) for step, i in order)
    answers = {identity: [] for identity in identities}
    for (_, identity), reply in zip(order, stub.ModelStreamInfer(requests, timeout=60), strict=True):
        assert reply.error_message == "", reply.error_message
        answers[identity].append(first_output(reply.infer_response))
    return answers


def by_rest(model, identities, precision):
    sounds = {identity: chunks(identity) for identity in identities}
    answers = {identity: [] for identity in identities}
    for step in range(STEPS):
        for identity in identities:
            status, reply = ask_rest(model, "input", sounds[identity][step], parameters(identity, step, precision))
            assert status == 200, reply
            (output,) = reply["outputs"]
            answers[identity].append(output["data"][0])
    return answers


class SequencesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        global client, stub, messages
        writers = {
            "vad": write_vad,
            "explicit": write_explicit,
            "shipped": write_shipped,
            "brief": lambda path: write_sum(path, settings="idle_seconds: 4, max_sequences: 2"),
            "swapped": lambda path: write_sum(path, settings="drain_seconds: 6"),
        }
        client = ServedClient(OCTET, writers)
        cls.addClassCleanup(client.close)
        stub, messages = client.stub, client.messages

    def all_at_once(self, model, precision, base):
        """Drives sequences by every transport at once; returns the answers by identity."""
        jobs = [(by_calls, [base + 1, base + 2]), (by_calls, [f"call-{base}", base + 3]), (by_stream, [base + n for n in range(4, 9)])]
        jobs += [(by_stream, [f"stream-{base}-{n}" for n in range(3)]), (by_rest, [base + 9, f"rest-{base}"])]
        with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
            runs = [pool.submit(job, model, identities, precision) for job, identities in jobs]
            return {identity: found for run in runs for identity, found in run.result().items()}

    def compare(self, found, expected, precision):
        difference = max(abs(a - b) for a, b in zip(found, expected, strict=True))
        self.assertLess(difference, TOLERANCE[precision])

    def test_answers_are_those_of_the_model_step_by_step(self):
        for number, (model, precision) in enumerate((("vad", "fp32"), ("vad", "bf16"), ("shipped", "fp32"))):
            for identity, answers in self.all_at_once(model, precision, 1000 * (number + 1)).items():
                with self.subTest(model=model, precision=precision, sequence=identity):
                    sounds = chunks(identity)
                    expected, forgetful = expected_by_onnxruntime(sounds)
                    if precision != "fp32":
                        expected = expected_by_hand(sounds, precision)
                    self.compare(answers, expected, precision)
                    apart = max(abs(a - b) for a, b in zip(expected, forgetful, strict=True))
                    self.assertGreater(apart, 10 * TOLERANCE[precision], "these sounds would not tell a state that is lost")
            self.assertEqual(metric("octet_live_sequences", model=model, precision=precision), 0)
        started = metric("octet_sequences_started_total", model="vad")
        self.assertEqual(metric("octet_sequences_ended_total", model="vad", reason="end"), started)

    def test_sequences_share_batches(self):
        until = time.monotonic() + WAIT_SECONDS
        shared = 0
        base = 50000
        while shared == 0 and time.monotonic() < until:
            by_stream("vad", range(base, base + 16), "fp32")
            base += 16
            (statistics,) = stub.ModelStatistics(messages.ModelStatisticsRequest(name="vad")).model_stats
            shared = sum(row.compute_infer.count for row in statistics.batch_stats if row.batch_size > 1)
        self.assertGreater(shared, 0)
        self.assertGreater(statistics.inference_count, statistics.execution_count)
        self.assertGreater(metric("octet_rows_total", model="vad"), metric("octet_executions_total", model="vad"))

    def test_clients_are_told_of_sequences_and_of_no_state(self):
        self.assertIn("sequence", stub.ServerMetadata(messages.ServerMetadataRequest()).extensions)
        metadata = stub.ModelMetadata(messages.ModelMetadataRequest(name="vad"))
        self.assertEqual(([i.name for i in metadata.inputs], [o.name for o in metadata.outputs]), (["input"], ["output"]))
        with urllib.request.urlopen(f"http://{client.server.http}/v2/models/vad/config", timeout=10) as reply:
            batching = json.load(reply)["sequence_batching"]
        self.assertEqual(int(batching["max_sequence_idle_microseconds"]), 60_000_000)
        (state,) = batching["state"]
        self.assertEqual((state["input_name"], state["output_name"], [int(d) for d in state["dims"]]), ("state", "stateN", [2, 128]))

    def test_what_is_wrong_is_told_by_every_transport(self):
        sound = chunks(0)[0]
        cases = [({}, "must specify a non-zero or non-empty correlation ID"), ({"sequence_id": 77}, "must specify the START flag")]
        for given, text in cases:
            request = make_request("vad", {"input": sound}, given)
            with self.assertRaises(grpc.RpcError) as refused:
                stub.ModelInfer(request, timeout=30)
            self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertIn(text, refused.exception.details())
            (reply,) = stub.ModelStreamInfer(iter([request]), timeout=30)
            self.assertIn(text, reply.error_message)
            status, answer = ask_rest("vad", "input", sound, given)
            self.assertEqual(status, 400)
            self.assertIn(text, answer["error"])
        status, answer = ask_rest("vad", "state", numpy.zeros((1, 2, 128), numpy.float32), parameters(78, 0))
        self.assertEqual(status, 400)
        self.assertIn('input "state" is a state', answer["error"])

    def add(self, model, identity, x, version="", **given):
        """Returns the response of a sum."""
        request = make_request(model, {"x": numpy.array([[x]])}, {"sequence_id": identity, **given})
        request.model_version = version
        return stub.ModelInfer(request, timeout=30)

    def refusal(self, model, identity, **given):
        with self.assertRaises(grpc.RpcError) as refused:
            self.add(model, identity, 1, **given)
        return refused.exception.code(), refused.exception.details()

    def test_idle_sequences_are_forgotten_and_their_number_is_bounded(self):
        for identity in (1, 2):
            self.add("brief", identity, 1, sequence_start=True)
        code, text = self.refusal("brief", 3, sequence_start=True)
        self.assertEqual(code, grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertIn("too many sequences, at most 2 are live", text)
        until = time.monotonic() + WAIT_SECONDS
        while metric("octet_sequences_ended_total", model="brief", reason="idle") < 2 and time.monotonic() < until:
            time.sleep(0.05)
        self.assertEqual(metric("octet_live_sequences", model="brief"), 0)
        self.assertEqual(metric("octet_sequence_state_bytes", model="brief"), 0)
        self.assertIn("must specify the START flag", self.refusal("brief", 1)[1])
        self.assertEqual(metric("octet_sequence_refused_requests_total", model="brief", reason="too_many"), 1)
        self.assertEqual(metric("octet_sequence_refused_requests_total", model="brief", reason="no_start"), 1)
        self.assertEqual(first_output(self.add("brief", 1, 5, sequence_start=True)), 5)

    def test_a_new_version_lets_live_sequences_drain(self):
        self.assertEqual(first_output(self.add("swapped", 1, 1, sequence_start=True)), 1)
        self.add("swapped", 2, 10, sequence_start=True)
        write_sum(client.folder / "new/2/fp32.onnx", factor=100.0)
        (client.folder / "new/2").rename(client.folder / "models/swapped/2")
        stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name="swapped"), timeout=60)
        response = self.add("swapped", 1, 2, version="1")
        self.assertEqual((response.model_version, first_output(response)), ("1", 3))
        self.assertEqual(self.refusal("swapped", 4, version="1", sequence_start=True)[0], grpc.StatusCode.NOT_FOUND)
        response = self.add("swapped", 2, 20, sequence_end=True)
        self.assertEqual((response.model_version, first_output(response)), ("1", 30))
        response = self.add("swapped", 3, 1, sequence_start=True)
        self.assertEqual((response.model_version, first_output(response)), ("2", 100))
        until, total, over = time.monotonic() + WAIT_SECONDS, 3, None
        while over is None and time.monotonic() < until:
            try:
                total += 1
                response = self.add("swapped", 1, 1)
                self.assertEqual((response.model_version, first_output(response)), ("1", total))
            except grpc.RpcError as error:
                over = error
            time.sleep(0.05)
        self.assertEqual(over.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertIn("start it again: sequence 1 of model 'swapped'", over.details())
        response = self.add("swapped", 1, 7, sequence_start=True)
        self.assertEqual((response.model_version, first_output(response)), ("2", 700))
        self.assertEqual(first_output(self.add("swapped", 3, 1)), 200)


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    skip_when_absent()
    unittest.main(verbosity=2)
