#!/usr/bin/env python3
"""Serves a small decoder: one layer of attention whose past begins with no position and grows with every call.

usage: decoder_test.py OCTET
"""

import json
import multiprocessing.shared_memory
import pathlib
import shutil
import sys
import tempfile
import time
import unittest

import grpc
import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from served_client import ServedClient

OCTET = ""
HEADS, SIZE, WORDS = 2, 4, 11
WIDTH = HEADS * SIZE
PASTS = {"past_key": "present_key", "past_value": "present_value"}
random = numpy.random.default_rng(3)
TABLE = random.normal(size=(WORDS, WIDTH)).astype(numpy.float32)
WEIGHTS = {name: random.normal(size=(WIDTH, WIDTH)).astype(numpy.float32) for name in ("query", "key", "value")}
client = stub = messages = captured = None


def write_decoder(path):
    """ids [b, s], past_key and past_value [b, HEADS, p, SIZE] -> scores [b, s, WORDS], and the pasts with s more positions."""
    constants = {**WEIGHTS, "table": TABLE, "turned": TABLE.T.copy(), "scale": numpy.float32(SIZE**-0.5)}
    constants["split"] = numpy.array([0, 0, HEADS, SIZE], numpy.int64)
    constants["join"] = numpy.array([0, 0, WIDTH], numpy.int64)
    nodes = [helper.make_node("Gather", ["table", "ids"], ["x"])]
    for name in WEIGHTS:
        nodes += [
            helper.make_node("MatMul", ["x", name], [f"{name}_flat"]),
            helper.make_node("Reshape", [f"{name}_flat", "split"], [f"{name}_split"]),
            helper.make_node("Transpose", [f"{name}_split"], [f"{name}_heads"], perm=[0, 2, 1, 3]),
        ]
    nodes += [
        helper.make_node("Concat", ["past_key", "key_heads"], ["present_key"], axis=2),
        helper.make_node("Concat", ["past_value", "value_heads"], ["present_value"], axis=2),
        helper.make_node("Transpose", ["present_key"], ["key_turned"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["query_heads", "key_turned"], ["products"]),
        helper.make_node("Mul", ["products", "scale"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "present_value"], ["seen"]),
        helper.make_node("Transpose", ["seen"], ["seen_split"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["seen_split", "join"], ["joined"]),
        helper.make_node("Add", ["joined", "x"], ["y"]),
        helper.make_node("MatMul", ["y", "turned"], ["scores"]),
    ]
    past = ["b", HEADS, "p", SIZE]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["b", "s"])]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, past) for name in PASTS]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["b", "s", WORDS])]
    outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", HEADS, "t", SIZE]) for name in PASTS.values()]
    initializers = [numpy_helper.from_array(numpy.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


def expected(ids, past_key, past_value):
    """What the decoder answers."""
    x = TABLE[ids]
    heads = {name: (x @ w).reshape(*ids.shape, HEADS, SIZE).transpose(0, 2, 1, 3) for name, w in WEIGHTS.items()}
    key = numpy.concatenate([past_key, heads["key"]], 2)
    value = numpy.concatenate([past_value, heads["value"]], 2)
    scores = heads["query"] @ key.transpose(0, 1, 3, 2) * SIZE**-0.5
    shares = numpy.exp(scores - scores.max(-1, keepdims=True, initial=-numpy.inf))
    shares /= shares.sum(-1, keepdims=True)
    y = (shares @ value).transpose(0, 2, 1, 3).reshape(x.shape) + x
    return {"scores": y @ TABLE.T, "present_key": key, "present_value": value}


def no_past(batch=1):
    return {name: numpy.empty((batch, HEADS, 0, SIZE), numpy.float32) for name in PASTS}


def write_copied(folder):
    """A model whose answers are compared with another precision's, and whose every request is kept."""
    version = folder / "models/copied/1"
    write_decoder(version / "fp32.onnx")
    shutil.copy(version / "fp32.onnx", version / "bf16.onnx")
    (version.parent / "model.yaml").write_text(
        "routing: {default: fp32, shadow: {precision: bf16, percent: 100}}\ncapture: {percent: 100}\n"
    )


def setUpModule():
    global client, stub, messages, captured
    captured = tempfile.TemporaryDirectory()
    configuration = f"capture: {{path: '{captured.name}', write_seconds: 1}}\n"
    client = ServedClient(OCTET, {"decoder": write_decoder}, write_copied, configuration, listen="shared_memory: true")
    stub, messages = client.stub, client.messages


def tearDownModule():
    client.close()
    captured.cleanup()


def datatype(array):
    return {"float32": "FP32", "int64": "INT64"}[str(array.dtype)]


def answer_of(request):
    """Returns {output: array}."""
    response = stub.ModelInfer(request, timeout=60)
    return {
        output.name: numpy.frombuffer(raw, numpy.float32).reshape(output.shape)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def ask_raw(arrays, model="decoder"):
    """Over gRPC, in raw contents."""
    request = messages.ModelInferRequest(model_name=model)
    for name, array in arrays.items():
        request.inputs.add(name=name, datatype=datatype(array), shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return answer_of(request)


def ask_typed(arrays, model="decoder"):
    """Over gRPC, in typed contents."""
    request = messages.ModelInferRequest(model_name=model)
    for name, array in arrays.items():
        tensor = request.inputs.add(name=name, datatype=datatype(array), shape=array.shape)
        field = tensor.contents.int64_contents if array.dtype == numpy.int64 else tensor.contents.fp32_contents
        field.extend(array.ravel().tolist())
    return answer_of(request)


def post(body, headers, model):
    """Returns the answer's headers and body."""
    status, headers, text = client.ask("POST", f"/v2/models/{model}/infer", body, headers)
    if status != 200:
        raise AssertionError(f"{status}: {text.decode()}")
    return headers, text


def ask_json(arrays, model="decoder"):
    """Over HTTP, in JSON alone."""
    inputs = [
        {"name": name, "datatype": datatype(array), "shape": array.shape, "data": array.ravel().tolist()}
        for name, array in arrays.items()
    ]
    _, text = post(json.dumps({"inputs": inputs}), {}, model)
    return {
        output["name"]: numpy.float32(output["data"]).reshape(output["shape"]) for output in json.loads(text)["outputs"]
    }


def ask_binary(arrays, model="decoder"):
    """Over HTTP, with the tensors behind the JSON."""
    inputs = [
        {"name": name, "datatype": datatype(array), "shape": array.shape, "parameters": {"binary_data_size": array.nbytes}}
        for name, array in arrays.items()
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    headers, text = post(head + b"".join(array.tobytes() for array in arrays.values()), headers, model)
    at = int(headers["Inference-Header-Content-Length"])
    answers = {}
    for output in json.loads(text[:at])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        answers[output["name"]] = numpy.frombuffer(text[at : at + size], numpy.float32).reshape(output["shape"])
        at += size
    return answers


def counted(metric):
    """The sum of a metric over the model that is copied and captured."""
    rows = [row for row in client.server.metrics_page().splitlines() if row.startswith(metric + '{model="copied"')]
    return sum(float(row.rsplit(" ", 1)[1]) for row in rows)


class DecoderTest(unittest.TestCase):
    def check(self, got, arrays):
        wanted = expected(**arrays)
        self.assertEqual(set(got), set(wanted))
        for name, value in wanted.items():
            self.assertEqual(got[name].shape, value.shape, name)
            numpy.testing.assert_allclose(got[name], value, rtol=1e-3, atol=1e-4, err_msg=name)

    def grow(self, ask, batch):
        """A prompt behind no past, then word for word what scores most."""
        arrays = {"ids": random.integers(WORDS, size=(batch, 3)), **no_past(batch)}
        for length in range(3, 7):
            got = ask(arrays)
            self.check(got, arrays)
            self.assertEqual(got["present_key"].shape, (batch, HEADS, length, SIZE))
            arrays = {past: got[present] for past, present in PASTS.items()}
            arrays["ids"] = got["scores"][:, -1:].argmax(-1)

    def test_the_past_grows_from_nothing_in_every_encoding(self):
        for ask in (ask_raw, ask_typed, ask_json, ask_binary):
            for batch in (1, 2):
                with self.subTest(encoding=ask.__name__, batch=batch):
                    self.grow(ask, batch)

    def test_a_prompt_of_no_words_has_no_scores(self):
        arrays = {"ids": numpy.empty((1, 0), numpy.int64), **no_past()}
        for ask in (ask_raw, ask_typed, ask_json, ask_binary):
            with self.subTest(encoding=ask.__name__):
                got = ask(arrays)
                self.assertEqual(got["scores"].shape, (1, 0, WORDS))
                self.assertEqual(got["present_value"].shape, (1, HEADS, 0, SIZE))
        behind = {"ids": arrays["ids"], **{name: numpy.ones((1, HEADS, 2, SIZE), numpy.float32) for name in PASTS}}
        got = ask_raw(behind)
        self.assertEqual(got["scores"].shape, (1, 0, WORDS))
        numpy.testing.assert_array_equal(got["present_key"], behind["past_key"])

    def test_a_batch_of_nothing_is_refused(self):
        with self.assertRaises(grpc.RpcError) as raised:
            ask_raw({"ids": numpy.empty((0, 1), numpy.int64), **no_past(0)})
        self.assertEqual(raised.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertIn("batch size, expected at least 1, got 0", raised.exception.details())

    def test_extents_that_are_known_stay_so(self):
        arrays = {"ids": numpy.zeros((1, 1), numpy.int64), **no_past()}
        arrays["past_key"] = numpy.empty((1, 0, 0, SIZE), numpy.float32)
        with self.assertRaises(grpc.RpcError) as raised:
            ask_raw(arrays)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertIn(f'input "past_key": shape, expected [?,{HEADS},?,{SIZE}]', raised.exception.details())

    def test_nothing_lies_in_shared_memory_too(self):
        memory = multiprocessing.shared_memory.SharedMemory(create=True, size=64)
        self.addCleanup(memory.unlink)
        self.addCleanup(memory.close)
        stub.SystemSharedMemoryRegister(
            messages.SystemSharedMemoryRegisterRequest(name="past", key=memory.name, offset=0, byte_size=64), timeout=20
        )
        request = messages.ModelInferRequest(model_name="decoder")
        arrays = {"ids": numpy.array([[1, 2]]), **no_past()}
        for name, array in arrays.items():
            tensor = request.inputs.add(name=name, datatype=datatype(array), shape=array.shape)
            if name == "ids":
                request.raw_input_contents.append(array.tobytes())
                continue
            tensor.parameters["shared_memory_region"].string_param = "past"
            tensor.parameters["shared_memory_byte_size"].int64_param = 0
        self.check(answer_of(request), arrays)

    def test_copies_and_captures_take_an_empty_past(self):
        for ids in (numpy.array([[4, 5, 6]]), numpy.empty((1, 0), numpy.int64)):
            arrays = {"ids": ids, **no_past()}
            self.check(ask_raw(arrays, model="copied"), arrays)
        until = time.monotonic() + 20
        files = pathlib.Path(captured.name, "copied/1")
        metrics = ("octet_shadow_compared_requests_total", "octet_captured_requests_total")
        while min(map(counted, metrics)) < 2 or len(list(files.glob("*.npz"))) < 2:
            self.assertLess(time.monotonic(), until, "copies and files take too long")
            time.sleep(0.05)
        self.assertEqual(counted("octet_captured_requests_total"), 2)
        shapes = set()
        for file in files.glob("*.npz"):
            with numpy.load(file) as arrays:
                self.assertEqual(arrays["past_key"].shape, (1, HEADS, 0, SIZE))
                shapes.add(arrays["ids"].shape)
        self.assertEqual(shapes, {(1, 3), (1, 0)})


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
