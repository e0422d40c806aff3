#!/usr/bin/env python3
"""How often the bytes of a large tensor are copied between gRPC and the model: into the batch, and nowhere else.

usage: copies_test.py OCTET COPY_COUNTER
"""

import concurrent.futures
import mmap
import os
import struct
import sys
import tempfile
import unittest

import numpy
import onnx
from served_client import ServedClient

OCTET = COPY_COUNTER = ""
ELEMENTS = 150528  # a picture of 3 x 224 x 224: 602 kB as FP32
REQUESTS = 8
WAIT_SECONDS = 60
client = counter = None


def write(path, inputs, outputs, operator, settings=""):
    """Writes a model of one operator: FP32 [N, inputs] -> [N, outputs]."""
    make = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [operator],
        "copies",
        [make("x", onnx.TensorProto.FLOAT, ["N", inputs])],
        [make("y", onnx.TensorProto.FLOAT, ["N", outputs])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    (path.parent.parent / "model.yaml").write_text(settings)


def mean():
    return onnx.helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=1)


def identity():
    return onnx.helper.make_node("Identity", ["x"], ["y"])


MAPPED = "inputs: {x: {wire: {datatype: UINT8, scale: [0.5], zero_point: [0]}}}\n"
BATCHED = f"batching: {{max_batch: {REQUESTS}, max_queue_delay_us: 2000000}}\n"
MODELS = {
    "mean": lambda path: write(path, ELEMENTS, 1, mean()),
    "mapped": lambda path: write(path, ELEMENTS, 1, mean(), MAPPED),
    "echo": lambda path: write(path, ELEMENTS, ELEMENTS, identity()),
    "batched_mean": lambda path: write(path, ELEMENTS, 1, mean(), BATCHED),
    "batched_echo": lambda path: write(path, ELEMENTS, ELEMENTS, identity(), BATCHED),
}


def setUpModule():
    global client, counter
    file = tempfile.NamedTemporaryFile()
    file.write(bytes(8))
    file.flush()
    counter = mmap.mmap(file.fileno(), 8)
    os.environ |= {"OCTET_COPIED": file.name, "LD_PRELOAD": COPY_COUNTER}
    try:
        client = ServedClient(OCTET, MODELS)
    finally:
        del os.environ["OCTET_COPIED"], os.environ["LD_PRELOAD"]
        file.close()


def tearDownModule():
    client.close()


def copied():
    return struct.unpack("=Q", counter)[0]


def request(model, row):
    message = client.messages.ModelInferRequest(model_name=model)
    datatype = {"float32": "FP32", "uint8": "UINT8"}[str(row.dtype)]
    message.inputs.add(name="x", datatype=datatype, shape=[1, len(row)])
    message.raw_input_contents.append(row.tobytes())
    return message


def answer(response):
    return numpy.frombuffer(response.raw_output_contents[0], numpy.float32)


class Copies(unittest.TestCase):
    def copies(self, model, rows, ask):
        """Returns how often a request's tensor was copied, by the mean of several; checks the answers."""
        messages = [request(model, row) for row in rows]
        ask(messages[:1])  # plans are compiled, buffers grow
        before = copied()
        answers = ask(messages)
        after = copied()
        for row, given in zip(rows, answers, strict=True):
            expected = row * (0.5 if model == "mapped" else 1)
            if "mean" in model or model == "mapped":
                expected = expected.mean(dtype=numpy.float64)
            numpy.testing.assert_allclose(answer(given), expected, rtol=1e-3)
        return (after - before) / len(rows) / rows[0].nbytes

    def rows(self, dtype=numpy.float32):
        random = numpy.random.default_rng(1)
        return [random.integers(1, 255, ELEMENTS).astype(dtype) for _ in range(REQUESTS)]

    def one_by_one(self, messages):
        return [client.stub.ModelInfer(message, timeout=WAIT_SECONDS) for message in messages]

    def over_a_stream(self, messages):
        answers = list(client.stub.ModelStreamInfer(iter(messages), timeout=WAIT_SECONDS))
        self.assertEqual([answer.error_message for answer in answers], [""] * len(messages))
        return [answer.infer_response for answer in answers]

    def together(self, messages):
        with concurrent.futures.ThreadPoolExecutor(len(messages)) as pool:
            return list(pool.map(lambda message: client.stub.ModelInfer(message, timeout=WAIT_SECONDS), messages))

    def test_an_input_is_copied_once_into_the_batch(self):
        for ask in (self.one_by_one, self.over_a_stream):
            self.assertAlmostEqual(self.copies("mean", self.rows(), ask), 1, delta=0.05)

    def test_an_input_that_is_converted_is_read_where_it_came(self):
        self.assertAlmostEqual(self.copies("mapped", self.rows(numpy.uint8), self.one_by_one), 0, delta=0.05)

    def test_an_output_is_sent_from_where_the_model_wrote_it(self):
        # The second copy is the model: its one operator is a copy.
        for ask in (self.one_by_one, self.over_a_stream):
            self.assertAlmostEqual(self.copies("echo", self.rows(), ask), 2, delta=0.05)

    def test_a_batch_is_gathered_once_and_sent_from_where_it_was_written(self):
        self.assertAlmostEqual(self.copies("batched_mean", self.rows(), self.together), 1, delta=0.05)
        self.assertAlmostEqual(self.copies("batched_echo", self.rows(), self.together), 2, delta=0.05)


if __name__ == "__main__":
    OCTET, COPY_COUNTER = sys.argv[1:3]
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
