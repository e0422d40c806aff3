#!/usr/bin/env python3
"""Sends tensors of every datatype through a server and back: raw and typed over gRPC, as JSON and as bytes over REST.

usage: datatypes_test.py OCTET
"""

import concurrent.futures
import json
import math
import sys
import unittest

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import grpc
import numpy
import onnx
from onnx import TensorProto, helper
from served_client import ServedClient

OCTET = ""
COLUMNS = 6
client = stub = messages = None


def bfloat16(values):
    """Returns the bits of FP32 values that BF16 holds."""
    bits = numpy.array(values, numpy.float32).view(numpy.uint32)
    return (bits >> 16).astype(numpy.uint16)


def integers(kind):
    limits = numpy.iinfo(kind)
    return numpy.array([limits.min, limits.max, 0, 1, limits.max - 1, limits.min + 1], kind)


def reals(kind):
    limits = numpy.finfo(kind)
    return numpy.array([limits.min, limits.max, limits.smallest_subnormal, -limits.tiny, -0.0, 1.5], kind)


BF16_REALS = [-3.3895313892515355e38, 3.3895313892515355e38, 9.183549615799121e-41, -1.1754943508222875e-38, -0.0, 1.5]
WORDS = [b"", b"\xff\x00", b"a" * 1000, "Ærø".encode(), b"0", b"\n"]

# Datatype -> (ONNX's type, the six elements of a row as numpy has them, the field of typed contents or None).
ROWS = {
    "BOOL": (TensorProto.BOOL, numpy.array([0, 1, 1, 0, 0, 1], numpy.bool_), "bool_contents"),
    "INT8": (TensorProto.INT8, integers(numpy.int8), "int_contents"),
    "INT16": (TensorProto.INT16, integers(numpy.int16), "int_contents"),
    "INT32": (TensorProto.INT32, integers(numpy.int32), "int_contents"),
    "INT64": (TensorProto.INT64, integers(numpy.int64), "int64_contents"),
    "UINT8": (TensorProto.UINT8, integers(numpy.uint8), "uint_contents"),
    "UINT16": (TensorProto.UINT16, integers(numpy.uint16), "uint_contents"),
    "UINT32": (TensorProto.UINT32, integers(numpy.uint32), "uint_contents"),
    "UINT64": (TensorProto.UINT64, integers(numpy.uint64), "uint64_contents"),
    "FP16": (TensorProto.FLOAT16, reals(numpy.float16), None),
    "BF16": (TensorProto.BFLOAT16, bfloat16(BF16_REALS), None),
    "FP32": (TensorProto.FLOAT, reals(numpy.float32), "fp32_contents"),
    "FP64": (TensorProto.DOUBLE, reals(numpy.float64), "fp64_contents"),
}
CONFIG_TYPES = {"BYTES": "TYPE_STRING"}
NOT_NUMBERS = {
    "FP16": numpy.array([math.nan, math.inf, -math.inf, 0, 0, 0], numpy.float16),
    "BF16": bfloat16([math.nan, math.inf, -math.inf, 0, 0, 0]),
    "FP32": numpy.array([math.nan, math.inf, -math.inf, 0, 0, 0], numpy.float32),
    "FP64": numpy.array([math.nan, math.inf, -math.inf, 0, 0, 0], numpy.float64),
}


def to_wire(words):
    return b"".join(len(word).to_bytes(4, "little") + word for word in words)


def writer(kind):
    """Returns what writes y = x of [n, COLUMNS] elements."""

    def write(path):
        ends = [helper.make_tensor_value_info(name, kind, ["n", COLUMNS]) for name in ("x", "y")]
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", ends[:1], ends[1:])
        path.parent.mkdir(parents=True)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8), path)

    return write


# What a client may send for BOOL: a byte of anything.
TRUTHS = numpy.array([0, 1, 2, 3, 128, 255], numpy.uint8)


def write_truths(path):
    """Writes what kernels make of x [n, k] of BOOL. Two requests that come together are a batch."""
    nodes = [
        helper.make_node("Not", ["x"], ["not"]),
        helper.make_node("And", ["x", "true"], ["and"]),
        helper.make_node("Xor", ["x", "true"], ["xor"]),
        helper.make_node("Equal", ["x", "true"], ["equal"]),
        helper.make_node("Cast", ["x"], ["real"], to=TensorProto.FLOAT),
    ]
    kinds = {"x": TensorProto.BOOL, "not": TensorProto.BOOL, "and": TensorProto.BOOL, "xor": TensorProto.BOOL}
    kinds |= {"equal": TensorProto.BOOL, "real": TensorProto.FLOAT}
    ends = [helper.make_tensor_value_info(name, kind, ["n", "k"]) for name, kind in kinds.items()]
    true = onnx.numpy_helper.from_array(numpy.array([True]), "true")
    graph = helper.make_graph(nodes, "truths", ends[:1], ends[1:], [true])
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8), path)
    (path.parents[1] / "model.yaml").write_text("batching: {max_batch: 2, max_queue_delay_us: 500000}\n")


def setUpModule():
    global client, stub, messages
    kinds = {datatype: row[0] for datatype, row in ROWS.items()} | {"BYTES": TensorProto.STRING}
    writers = {datatype.lower(): writer(kind) for datatype, kind in kinds.items()}
    client = ServedClient(OCTET, writers | {"truths": write_truths})
    stub, messages = client.stub, client.messages


def tearDownModule():
    client.close()


def request(datatype, rows=1, raw=None, typed=None):
    """typed: the field of contents and its elements."""
    made = messages.ModelInferRequest(model_name=datatype.lower())
    tensor = made.inputs.add(name="x", datatype=datatype, shape=[rows, COLUMNS])
    if raw is not None:
        made.raw_input_contents.append(raw)
    if typed is not None:
        getattr(tensor.contents, typed[0]).extend(typed[1])
    return made


def post(datatype, body, headers=None):
    """Returns (status, length of the JSON, body)."""
    status, answered, text = client.ask("POST", f"/v2/models/{datatype.lower()}/infer", body, headers)
    return status, int(answered.get("Inference-Header-Content-Length", 0)), text


class DatatypesTest(unittest.TestCase):
    def check(self, datatype, message, raw, rows=1):
        answer = stub.ModelInfer(message, timeout=20)
        self.assertEqual((answer.outputs[0].datatype, list(answer.outputs[0].shape)), (datatype, [rows, COLUMNS]))
        self.assertEqual(list(answer.raw_output_contents), [raw])

    def test_raw_contents(self):
        for datatype, (_, row, _) in ROWS.items():
            with self.subTest(datatype):
                self.check(datatype, request(datatype, raw=row.tobytes()), row.tobytes())
                more = numpy.concatenate([row[::-1], row, row])
                self.check(datatype, request(datatype, 3, raw=more.tobytes()), more.tobytes(), 3)
        for datatype, row in NOT_NUMBERS.items():
            with self.subTest(datatype):
                self.check(datatype, request(datatype, raw=row.tobytes()), row.tobytes())
        self.check("BYTES", request("BYTES", raw=to_wire(WORDS)), to_wire(WORDS))

    def test_typed_contents(self):
        for datatype, (_, row, field) in ROWS.items():
            with self.subTest(datatype):
                if field is not None:
                    self.check(datatype, request(datatype, typed=(field, row.tolist())), row.tobytes())
                    continue
                with self.assertRaises(grpc.RpcError) as caught:
                    stub.ModelInfer(request(datatype, typed=("fp32_contents", [0.0] * COLUMNS)), timeout=20)
                self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
                self.assertEqual(caught.exception.details(), f'input "x": {datatype} comes in raw_input_contents only')
        for datatype in ("FP32", "FP64"):
            row, field = NOT_NUMBERS[datatype], ROWS[datatype][2]
            self.check(datatype, request(datatype, typed=(field, row.tolist())), row.tobytes())
        self.check("BYTES", request("BYTES", typed=("bytes_contents", WORDS)), to_wire(WORDS))

    def test_typed_contents_of_another_field(self):
        fields = {field for _, _, field in ROWS.values()} - {None} | {"bytes_contents"}
        for datatype, (_, _, field) in ROWS.items():
            for other in fields - {field} if field else ():
                with self.subTest(datatype=datatype, field=other):
                    element = b"" if other == "bytes_contents" else 0
                    with self.assertRaises(grpc.RpcError) as caught:
                        stub.ModelInfer(request(datatype, typed=(other, [element] * COLUMNS)), timeout=20)
                    self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
                    self.assertIn(f'input "x": contents of {datatype} go into {field} alone', caught.exception.details())

    def test_elements_out_of_range_are_refused(self):
        for datatype, (_, row, field) in ROWS.items():
            if field not in ("int_contents", "uint_contents") or datatype.endswith("32"):
                continue
            limits = numpy.iinfo(row.dtype)
            for wrong in {limits.max + 1, max(limits.min - 1, 0), 2**31 - 1} - {0}:
                with self.subTest(datatype=datatype, element=wrong):
                    with self.assertRaises(grpc.RpcError) as caught:
                        stub.ModelInfer(request(datatype, typed=(field, [0] * (COLUMNS - 1) + [wrong])), timeout=20)
                    self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
                    expected = f'input "x": contents, expected {limits.min} .. {limits.max}, got {wrong}'
                    self.assertEqual(caught.exception.details(), expected)
        for datatype, (_, row, _) in ROWS.items():
            if row.dtype.kind not in "iu" or datatype == "BF16":
                continue
            limits = numpy.iinfo(row.dtype)
            for wrong in (limits.max + 1, limits.min - 1):
                with self.subTest(datatype=datatype, json=wrong):
                    tensor = {"name": "x", "datatype": datatype, "shape": [1, COLUMNS], "data": [0] * (COLUMNS - 1) + [wrong]}
                    status, _, body = post(datatype, json.dumps({"inputs": [tensor]}))
                    self.assertEqual(status, 400)
                    self.assertIn(f"expected a whole number in {limits.min} .. {limits.max}, got {wrong}", json.loads(body)["error"])

    def test_the_same_as_json(self):
        for datatype, (_, row, _) in ROWS.items():
            with self.subTest(datatype):
                data = BF16_REALS if datatype == "BF16" else row.tolist()
                tensor = {"name": "x", "datatype": datatype, "shape": [1, COLUMNS], "data": data}
                status, _, body = post(datatype, json.dumps({"inputs": [tensor]}))
                self.assertEqual(status, 200, body)
                # Python takes -0 for a whole number, which has no sign.
                whole = int if row.dtype.kind in "iub" and datatype != "BF16" else float
                (output,) = json.loads(body, parse_int=lambda text, whole=whole: whole(text))["outputs"]
                self.assertEqual((output["datatype"], output["shape"]), (datatype, [1, COLUMNS]))
                told = output["data"]
                bits = bfloat16(told) if datatype == "BF16" else numpy.array(told, row.dtype)
                self.assertEqual(bits.tobytes(), row.tobytes(), told)
        tensor = {"name": "x", "datatype": "BYTES", "shape": [1, 2], "data": ["", "Ærø\n"]}
        status, _, body = post("BYTES", json.dumps({"inputs": [{**tensor, "shape": [3, 2], "data": tensor["data"] * 3}]}))
        self.assertEqual(status, 400, "six in a row")
        status, _, body = post("BYTES", json.dumps({"inputs": [{**tensor, "shape": [1, COLUMNS], "data": tensor["data"] * 3}]}))
        self.assertEqual(status, 200, body)
        self.assertEqual(json.loads(body)["outputs"][0]["data"], tensor["data"] * 3)

    def test_the_same_as_bytes_over_rest(self):
        raws = [(datatype, row.tobytes()) for datatype, (_, row, _) in ROWS.items()]
        raws += [(datatype, row.tobytes()) for datatype, row in NOT_NUMBERS.items()]
        for datatype, raw in [*raws, ("BYTES", to_wire(WORDS))]:
            with self.subTest(datatype):
                tensor = {"name": "x", "datatype": datatype, "shape": [1, COLUMNS], "parameters": {"binary_data_size": len(raw)}}
                head = json.dumps({"parameters": {"binary_data_output": True}, "inputs": [tensor]}).encode()
                status, length, body = post(datatype, head + raw, {"Inference-Header-Content-Length": str(len(head))})
                self.assertEqual(status, 200, body)
                self.assertEqual(json.loads(body[:length])["outputs"][0]["datatype"], datatype)
                self.assertEqual(body[length:], raw)

    def test_raw_bodies(self):
        for datatype, (_, row, _) in ROWS.items():
            with self.subTest(datatype):
                status, length, body = post(datatype, row.tobytes(), {"Inference-Header-Content-Length": "0"})
                self.assertEqual(status, 200, body)
                self.assertEqual(body[length:], row.tobytes())

    def test_what_json_does_not_know_is_as_python_writes_it(self):
        for datatype, row in NOT_NUMBERS.items():
            with self.subTest(datatype):
                raw = row.tobytes()
                tensor = {"name": "x", "datatype": datatype, "shape": [1, COLUMNS], "parameters": {"binary_data_size": len(raw)}}
                head = json.dumps({"inputs": [tensor]}).encode()
                status, _, body = post(datatype, head + raw, {"Inference-Header-Content-Length": str(len(head))})
                self.assertEqual(status, 200, body)
                told = json.loads(body)["outputs"][0]["data"]
                self.assertTrue(math.isnan(told[0]), told)
                self.assertEqual(told[1:], [math.inf, -math.inf, 0, 0, 0])

    def test_descriptions_name_the_datatype(self):
        for datatype in [*ROWS, "BYTES"]:
            with self.subTest(datatype):
                metadata = stub.ModelMetadata(messages.ModelMetadataRequest(name=datatype.lower()), timeout=20)
                self.assertEqual([metadata.inputs[0].datatype, metadata.outputs[0].datatype], [datatype] * 2)
                config = stub.ModelConfig(messages.ModelConfigRequest(name=datatype.lower()), timeout=20).config
                kind = getattr(messages, CONFIG_TYPES.get(datatype, f"TYPE_{datatype}"))
                self.assertEqual([config.input[0].data_type, config.output[0].data_type], [kind] * 2)


class TruthsTest(unittest.TestCase):
    """Any byte but 0 is true, and no kernel meets another one than 0 and 1."""

    def ask(self, rows):
        message = messages.ModelInferRequest(model_name="truths")
        message.inputs.add(name="x", datatype="BOOL", shape=rows.shape)
        message.raw_input_contents.append(rows.tobytes())
        return stub.ModelInfer(message, timeout=20)

    def check(self, rows, answer):
        x = rows != 0
        expected = {"not": ~x, "and": x, "xor": ~x, "equal": x, "real": x.astype(numpy.float32)}
        told = dict(zip((output.name for output in answer.outputs), answer.raw_output_contents, strict=True))
        self.assertEqual({name: raw.hex() for name, raw in told.items()}, {name: bits.tobytes().hex() for name, bits in expected.items()})

    def test_one_request(self):
        rows = TRUTHS.reshape(1, COLUMNS)
        self.check(rows, self.ask(rows))
        status, length, body = post("truths", rows.tobytes(), {"Inference-Header-Content-Length": "0"})
        self.assertEqual(status, 200, body)
        self.assertEqual(body[length:][:COLUMNS].hex(), (rows == 0).tobytes().hex())

    def test_a_message_in_pieces(self):
        rows = numpy.resize(TRUTHS, (1, 100_000))  # gRPC receives them in several slices
        self.check(rows, self.ask(rows))

    def test_a_batch_of_two(self):
        first, second = TRUTHS.reshape(1, COLUMNS), TRUTHS[::-1].reshape(1, COLUMNS)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for _ in range(20):  # Until both come within the delay.
                asked = [(rows, pool.submit(self.ask, rows)) for rows in (first, second)]
                for rows, answer in asked:
                    self.check(rows, answer.result(20))
                told = stub.ModelStatistics(messages.ModelStatisticsRequest(name="truths"), timeout=20).model_stats[0]
                if 2 in (batch.batch_size for batch in told.batch_stats):
                    return
        self.fail(f"no batch of two: {told.batch_stats}")


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
