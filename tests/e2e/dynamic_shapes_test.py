#!/usr/bin/env python3
"""Serves models whose answers' shapes follow from their data: a detector, and a loop that can be asked to run for ever.

usage: dynamic_shapes_test.py OCTET
"""

import sys
import unittest

import grpc
import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from served_client import ServedClient

OCTET = ""
BOXES = 32
client = stub = messages = None


def save(nodes, inputs, outputs, constants, path):
    initializers = [numpy_helper.from_array(numpy.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
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


def setUpModule():
    global client, stub, messages
    client = ServedClient(OCTET, {"detector": write_detector, "loop": write_loop})
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


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
