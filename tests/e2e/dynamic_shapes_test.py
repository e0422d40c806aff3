#!/usr/bin/env python3
"""Serves models whose answers' shapes follow from their data: a detector, and a loop that can be asked to run for ever.

usage: dynamic_shapes_test.py OCTET
"""

import concurrent.futures
import http.client
import json
import pathlib
import signal
import sys
import tempfile
import time
import unittest

import grpc
import numpy
import onnx
import served_models
from onnx import TensorProto, helper, numpy_helper
from served_client import ServedClient

OCTET = ""
BOXES = 32
SIDE = 256
client = stub = messages = None


def save(nodes, inputs, outputs, constants, path, check=onnx.checker.check_model):
    initializers = [numpy_helper.from_array(numpy.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    check(model)
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


def write_detector(path):
    """boxes [1, N, 4], scores [1, 1, N] -> the boxes that stay [?, 4], their scores [?], and how many there are."""
    nodes = [
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["selected"]),
        helper.make_node("Slice", ["selected", "two", "three", "one"], ["column"]),
        helper.make_node("Squeeze", ["column", "one"], ["index"]),
        helper.make_node("Squeeze", ["boxes", "zero"], ["list"]),
        helper.make_node("Gather", ["list", "index"], ["kept"]),
        helper.make_node("Reshape", ["scores", "minus"], ["flat"]),
        helper.make_node("Gather", ["flat", "index"], ["kept_scores"]),
        helper.make_node("Shape", ["index"], ["count"]),
    ]
    inputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, BOXES, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1, BOXES]),
    ]
    outputs = [
        helper.make_tensor_value_info("kept", TensorProto.FLOAT, ["n", 4]),
        helper.make_tensor_value_info("kept_scores", TensorProto.FLOAT, ["n"]),
        helper.make_tensor_value_info("count", TensorProto.INT64, [1]),
    ]
    constants = {
        "most": numpy.int64(100),
        "iou": numpy.float32(0.5),
        "least": numpy.float32(0.3),
        "zero": numpy.array([0], numpy.int64),
        "one": numpy.array([1], numpy.int64),
        "two": numpy.array([2], numpy.int64),
        "three": numpy.array([3], numpy.int64),
        "minus": numpy.array([-1], numpy.int64),
    }
    save(nodes, inputs, outputs, constants, path)


def write_loop(path):
    """trips, x [2] -> x doubled `trips` times, and every step [trips, 2]."""
    body = helper.make_graph(
        [helper.make_node("Mul", ["state", "factor"], ["next"]), helper.make_node("Identity", ["go_on"], ["still"]),
         helper.make_node("Identity", ["next"], ["step"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [2]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("step", TensorProto.FLOAT, [2]),
        ],
    )
    nodes = [
        helper.make_node("Squeeze", ["trips", "zero"], ["count"]),
        helper.make_node("Loop", ["count", "", "x"], ["last", "steps"], body=body),
    ]
    inputs = [
        helper.make_tensor_value_info("trips", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
    ]
    outputs = [
        helper.make_tensor_value_info("last", TensorProto.FLOAT, [2]),
        helper.make_tensor_value_info("steps", TensorProto.FLOAT, ["trips", 2]),
    ]
    save(nodes, inputs, outputs, {"factor": numpy.float32(2), "zero": numpy.array([0], numpy.int64)}, path)


def write_endless(path, most=2**62):
    """trips, x [SIDE, SIDE] -> its product with a matrix, `trips` times and at most `most`: as many as a run may take last many minutes."""
    state = [SIDE, SIDE]
    body = helper.make_graph(
        [helper.make_node("MatMul", ["state", "factor"], ["next"]), helper.make_node("Identity", ["go_on"], ["still"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, state),
        ],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, []), helper.make_tensor_value_info("next", TensorProto.FLOAT, state)],
    )
    nodes = [
        helper.make_node("Squeeze", ["trips", "zero"], ["asked"]),
        helper.make_node("Min", ["asked", "most"], ["count"]),
        helper.make_node("Loop", ["count", "", "x"], ["last"], body=body),
    ]
    inputs = [
        helper.make_tensor_value_info("trips", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, state),
    ]
    outputs = [helper.make_tensor_value_info("last", TensorProto.FLOAT, state)]
    factor = numpy.full(state, 1 / SIDE, numpy.float32)
    save(nodes, inputs, outputs, {"factor": factor, "zero": numpy.array([0], numpy.int64), "most": numpy.int64(most)}, path)


def write_shadowed(path):
    """fp32 answers at once, and its copies in bf16 run for ever."""
    write_endless(path, 3)
    other = path.parent.parent / "other/bf16.onnx"
    write_endless(other)
    other.rename(path.parent / "bf16.onnx")
    (path.parent.parent / "model.yaml").write_text("routing: {default: fp32, shadow: {precision: bf16, percent: 100}}\n")


def write_any_rank(path):
    """x of any shape -> Relu of it."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    save([helper.make_node("Relu", ["x"], ["y"])], [x], [y], {}, path, check=lambda model: None)  # ONNX's checker wants a shape of everything


def write_chooser(path):
    """data [N, 2], indices [K] -> data[indices]: an answer is made of several rows of its own request."""
    inputs = [
        helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n", 2]),
        helper.make_tensor_value_info("indices", TensorProto.INT64, ["k"]),
    ]
    outputs = [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, ["k", 2])]
    save([helper.make_node("Gather", ["data", "indices"], ["chosen"])], inputs, outputs, {}, path)
    # Requests that could be stacked would be.
    (path.parent.parent / "model.yaml").write_text("batching: {max_queue_delay_us: 20000}\n")


def setUpModule():
    global client, stub, messages
    writers = {"detector": write_detector, "loop": write_loop, "any_rank": write_any_rank, "chooser": write_chooser}
    client = ServedClient(OCTET, writers)
    stub, messages = client.stub, client.messages


def tearDownModule():
    client.close()


def infer(model, **arrays):
    """Returns the model's outputs as arrays of the shapes that the answer says."""
    request = messages.ModelInferRequest(model_name=model)
    types = {"float32": "FP32", "int64": "INT64"}
    for name, array in arrays.items():
        request.inputs.add(name=name, datatype=types[str(array.dtype)], shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    response = stub.ModelInfer(request, timeout=60)
    answers = {}
    for output, raw in zip(response.outputs, response.raw_output_contents):
        dtype = {"FP32": numpy.float32, "INT64": numpy.int64}[output.datatype]
        answers[output.name] = numpy.frombuffer(raw, dtype).reshape(output.shape)
    return answers


def detections(boxes, scores):
    """Greedy suppression by its definition."""
    kept = []
    for i in sorted(range(BOXES), key=lambda i: -scores[i]):
        if not scores[i] > 0.3:
            continue
        y1, x1, y2, x2 = boxes[i]
        overlaps = False
        for j in kept:
            v1, u1, v2, u2 = boxes[j]
            shared = max(0, min(y2, v2) - max(y1, v1)) * max(0, min(x2, u2) - max(x1, u1))
            union = (y2 - y1) * (x2 - x1) + (v2 - v1) * (u2 - u1) - shared
            overlaps = overlaps or shared / union > 0.5
        if not overlaps:
            kept.append(i)
    return kept


class DynamicShapesTest(unittest.TestCase):
    def test_a_detector_answers_what_it_finds(self):
        random = numpy.random.default_rng(1)
        counts = set()
        for share in (0.0, 0.1, 0.5, 1.0):
            corners = random.uniform(0, 6, (BOXES, 2))
            boxes = numpy.concatenate([corners, corners + random.uniform(1, 3, (BOXES, 2))], 1).astype(numpy.float32)
            scores = (random.uniform(0.31, 1, BOXES) * (random.uniform(0, 1, BOXES) < share)).astype(numpy.float32)
            kept = detections(boxes, scores)
            counts.add(len(kept))
            answer = infer("detector", boxes=boxes[None], scores=scores[None, None])
            self.assertEqual(answer["kept"].shape, (len(kept), 4))
            numpy.testing.assert_array_equal(answer["kept"], boxes[kept])
            numpy.testing.assert_array_equal(answer["kept_scores"], scores[kept])
            self.assertEqual(answer["count"].tolist(), [len(kept)])
        self.assertIn(0, counts)
        self.assertGreater(len(counts), 2)

    def test_a_request_that_chooses_among_its_rows_gets_none_of_another_ones(self):
        def ask(i):
            data = numpy.float32([[i, i], [-i, -i]])
            return infer("chooser", data=data, indices=numpy.array([1, 0]))["chosen"].tolist()

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, range(1, 49)))
        self.assertEqual(answers, [[[-i, -i], [i, i]] for i in range(1, 49)])
        some = infer("chooser", data=numpy.float32([[1, 2], [3, 4], [5, 6]]), indices=numpy.array([2]))
        self.assertEqual(some["chosen"].tolist(), [[5, 6]])
        config = stub.ModelConfig(messages.ModelConfigRequest(name="chooser"), timeout=20).config
        self.assertEqual(config.max_batch_size, 0)

    def test_an_input_without_a_declared_rank_takes_any(self):
        for shape in ((2, 3), (), (1, 2, 2, 1), (4,)):
            x = numpy.linspace(-1, 1, int(numpy.prod(shape)), dtype=numpy.float32).reshape(shape)
            answer = infer("any_rank", x=x)["y"]
            self.assertEqual(answer.shape, shape)
            numpy.testing.assert_array_equal(answer, numpy.maximum(x, 0))

    def test_metadata_leaves_open_what_the_data_decide(self):
        metadata = stub.ModelMetadata(messages.ModelMetadataRequest(name="detector"), timeout=20)
        self.assertEqual([list(output.shape) for output in metadata.outputs], [[-1, 4], [-1], [1]])
        config = stub.ModelConfig(messages.ModelConfigRequest(name="detector"), timeout=20).config
        self.assertEqual(config.max_batch_size, 0)

    def test_a_loop_runs_as_often_as_it_is_told(self):
        for trips in (0, 1, 5):
            answer = infer("loop", trips=numpy.array([trips], numpy.int64), x=numpy.array([1, 3], numpy.float32))
            numpy.testing.assert_array_equal(answer["last"], numpy.float32([1, 3]) * 2**trips)
            self.assertEqual(answer["steps"].shape, (trips, 2))

    def test_a_loop_without_end_fails_alone(self):
        with self.assertRaises(grpc.RpcError) as raised:
            infer("loop", trips=numpy.array([2**62], numpy.int64), x=numpy.array([1, 3], numpy.float32))
        self.assertEqual(raised.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertIn("Loop", raised.exception.details())
        self.test_a_loop_runs_as_often_as_it_is_told()


class DrainTest(unittest.TestCase):
    """A server of its own, which is told to stop while a model runs for ever."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def start(self, name, write, grace_seconds):
        write(self.folder / f"models/{name}/1/fp32.onnx")
        configuration = f"shutdown: {{grace_seconds: {grace_seconds}}}\nworkers: {{count: 1, threads: 1}}\n"
        server = served_models.server.Server(OCTET, self.folder / "models", self.folder, configuration)
        self.addCleanup(server.__exit__, None, None, None)
        return server

    def ask(self, server, name):
        """Returns the connection, on which the answer comes."""
        trips = {"name": "trips", "datatype": "INT64", "shape": [1], "data": [2**62]}
        x = {"name": "x", "datatype": "FP32", "shape": [SIDE, SIDE], "data": [1] * SIDE**2}
        connection = http.client.HTTPConnection(server.http, timeout=30)
        connection.request("POST", f"/v2/models/{name}/infer", json.dumps({"inputs": [trips, x]}))
        self.addCleanup(connection.close)
        return connection

    def wait_for(self, server, line):
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if line in server.metrics_page():
                return
            time.sleep(0.02)
        self.fail(f"never seen: {line}")

    def stop(self, server, most_seconds):
        """Returns how it ended."""
        server.process.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        status = server.process.wait(60)
        self.assertLess(time.monotonic() - begin, most_seconds)
        return status

    def test_a_call_over_http_ends_with_the_grace_time(self):
        server = self.start("endless", write_endless, grace_seconds=1)
        connection = self.ask(server, "endless")
        self.wait_for(server, 'octet_in_flight_requests{model="endless",version="1",precision="fp32"} 1')
        self.wait_for(server, 'octet_queue_depth{model="endless",version="1",precision="fp32"} 0')
        self.assertEqual(self.stop(server, 10), 1)
        self.assertIn("event=drain_timed_out", server.log.read_text())
        answer = connection.getresponse()
        self.assertEqual(answer.status, 503)
        self.assertIn("the server is shutting down", answer.read().decode())

    def test_nobody_waits_for_a_shadow_copy(self):
        server = self.start("shadowed", write_shadowed, grace_seconds=30)
        self.assertEqual(self.ask(server, "shadowed").getresponse().status, 200)
        # The only worker has taken the copy.
        self.wait_for(server, 'octet_shadow_queue_depth{model="shadowed",version="1",precision="bf16"} 0')
        self.assertEqual(self.stop(server, 10), 0)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
