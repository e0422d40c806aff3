#!/usr/bin/env python3
"""Calls `octet serve` over HTTP, with curl and Python's http.client, and asks gRPC the same.

usage: rest_test.py OCTET
"""

import gzip
import http.client
import json
import multiprocessing.shared_memory
import random
import re
import subprocess
import sys
import unittest

import grpc
import numpy
import served_models
from google.protobuf import json_format
from served_client import ServedClient

OCTET = ""
SEED = 20
client = server = stub = messages = ask = ask_json = None
INFER = "/v2/models/glyphs/infer"
IMAGES, TRUTH = served_models.load_test_set()


def setUpModule():
    global client, server, stub, messages, ask, ask_json
    client = ServedClient(
        OCTET,
        fill=lambda folder: served_models.make_repository(OCTET, folder),
        configuration=served_models.CONFIGURATION,
        listen="shared_memory: true",
    )
    server, stub, messages = client.server, client.stub, client.messages
    ask, ask_json = client.ask, client.ask_json


def tearDownModule():
    client.close()


def image_input(count=1, **fields):
    return {"name": "image", "datatype": "UINT8", "shape": [count, *IMAGES.shape[1:]], **fields}


def json_request(count=1, precision="fp32", **fields):
    return {
        "id": "an id",
        "parameters": {"precision": precision},
        "inputs": [image_input(count, data=IMAGES[:count].tolist())],
        **fields,
    }


def grpc_request(count=1, precision="fp32"):
    request = messages.ModelInferRequest(model_name="glyphs", id="an id")
    request.parameters["precision"].string_param = precision
    request.inputs.add(name="image", datatype="UINT8", shape=[count, *IMAGES.shape[1:]])
    request.raw_input_contents.append(IMAGES[:count].tobytes())
    return request


def binary_request(count=1, precision="fp32"):
    """Returns (body, headers)."""
    head = json.dumps(
        {
            "parameters": {"precision": precision, "binary_data_output": True},
            "inputs": [image_input(count, parameters={"binary_data_size": IMAGES[:count].nbytes})],
        }
    ).encode()
    return head + IMAGES[:count].tobytes(), {"Inference-Header-Content-Length": str(len(head))}


def grpc_logits(count=1, precision="fp32"):
    response = stub.ModelInfer(grpc_request(count, precision), timeout=20)
    return numpy.frombuffer(response.raw_output_contents[0], numpy.float32)


class InferTest(unittest.TestCase):
    def test_json_and_binary_answer_as_grpc_does(self):
        for precision in ("fp32", "int8"):
            for count in (1, 8):
                with self.subTest(precision=precision, count=count):
                    expected = grpc_logits(count, precision)
                    status, answer = ask_json("POST", INFER, json_request(count, precision))
                    self.assertEqual(status, 200, answer)
                    self.assertEqual((answer["id"], answer["model_name"]), ("an id", "glyphs"))
                    self.assertEqual(answer["parameters"], {"precision": precision, "route": "explicit"})
                    self.assertEqual(answer["outputs"][0]["shape"], [count, len(served_models.LABELS)])
                    numpy.testing.assert_array_equal(numpy.float32(answer["outputs"][0]["data"]), expected)
                    status, headers, body = ask("POST", INFER, *binary_request(count, precision))
                    self.assertEqual(status, 200, body)
                    length = int(headers["Inference-Header-Content-Length"])
                    numpy.testing.assert_array_equal(numpy.frombuffer(body[length:], numpy.float32), expected)
                    self.assertEqual(json.loads(body[:length])["outputs"][0]["parameters"]["binary_data_size"], expected.nbytes)

    def test_curl(self):
        command = ["curl", "--silent", "--show-error", "--fail-with-body", "--compressed", "--data-binary", "@-"]
        command += ["--header", "X-Octet-Precision: int8", f"http://{server.http}{INFER}"]
        request = json_request()
        del request["parameters"]
        done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=30, check=True)
        answer = json.loads(done.stdout)
        self.assertEqual(answer["parameters"]["precision"], "int8")
        self.assertEqual(len(answer["outputs"][0]["data"]), len(served_models.LABELS))

    def test_raw_bytes_are_the_one_input(self):
        reals = ((IMAGES[:1].astype(numpy.float32) - 127.5) * numpy.float32(0.00784313725)).astype(numpy.float32)
        request = grpc_request()
        request.inputs[0].datatype = "FP32"
        request.raw_input_contents[0] = reals.tobytes()
        expected = stub.ModelInfer(request, timeout=20).raw_output_contents[0]
        raw = {"Inference-Header-Content-Length": "0", "X-Octet-Precision": "fp32"}
        status, headers, body = ask("POST", INFER, reals.tobytes(), raw)
        self.assertEqual(status, 200, body)
        length = int(headers["Inference-Header-Content-Length"])
        answer = json.loads(body[:length])
        self.assertEqual(answer["outputs"][0]["shape"], [1, len(served_models.LABELS)])
        self.assertEqual(answer["outputs"][0]["parameters"], {"binary_data_size": len(expected)})
        self.assertEqual(body[length:], expected)
        for wrong in (reals.tobytes()[:-1], numpy.concatenate([reals, reals]).tobytes(), b""):
            status, _, body = ask("POST", INFER, wrong, raw)
            self.assertEqual(status, 400)
            self.assertEqual(json.loads(body)["error"], f'input "image": bytes, expected 12288 for FP32 [1,3,32,32], got {len(wrong)}')

    def test_the_example_of_the_readme(self):
        text = (served_models.ROOT / "README.md").read_text()
        example = re.search(r"\n    (curl .*?)\n\n", text, re.DOTALL)[1]
        script = example.replace("localhost:8000", server.http)
        self.assertNotEqual(script, example)
        command = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        self.assertEqual(done.stdout.count('"datatype":"FP32"'), 3, done.stdout)
        self.assertIn('"precision":"int8"', done.stdout)

    def test_an_open_connection_is_used_again(self):
        connection = http.client.HTTPConnection(server.http, timeout=30)
        connection.connect()
        port = connection.sock.getsockname()
        for _ in range(150):
            self.assertEqual(ask("POST", INFER, *binary_request(), connection)[0], 200)
        self.assertEqual(connection.sock.getsockname(), port)
        connection.close()

    def test_compression(self):
        body = gzip.compress(json.dumps(json_request()).encode())
        headers = {"Content-Encoding": "gzip", "Accept-Encoding": "gzip"}
        status, headers, answer = ask("POST", INFER, body, headers)
        self.assertEqual((status, headers["Content-Encoding"]), (200, "gzip"))
        self.assertEqual(json.loads(gzip.decompress(answer))["id"], "an id")
        bomb = gzip.compress(b" " * (64 << 20))
        self.assertEqual(ask("POST", INFER, bomb, {"Content-Encoding": "gzip"})[0], 413)

    def test_classification(self):
        name = ask_json("GET", "/v2/models/glyphs")[1]["outputs"][0]["name"]
        outputs = [{"name": name, "parameters": {"classification": 2}}]
        status, answer = ask_json("POST", INFER, json_request(2, outputs=outputs))
        self.assertEqual(status, 200, answer)
        output = answer["outputs"][0]
        self.assertEqual((output["datatype"], output["shape"]), ("BYTES", [2, 2]))
        score, index, label = output["data"][0].split(":")
        self.assertEqual(label, served_models.LABELS[int(index)])
        self.assertAlmostEqual(float(score), grpc_logits(2).max(initial=-1e9, where=numpy.arange(2 * len(served_models.LABELS)) < len(served_models.LABELS)), places=4)

    def test_not_a_number_is_what_python_reads(self):
        reals = ((IMAGES[:1].astype(numpy.float32) - 127.5) * 0.0078).astype(numpy.float32)
        request = {"inputs": [{**image_input(data=reals.tolist()), "datatype": "FP32"}]}
        status, answer = ask_json("POST", "/v2/models/nan/infer", request)
        self.assertEqual(status, 200, answer)
        self.assertTrue(numpy.isnan(answer["outputs"][0]["data"]).any())

    def test_a_sticky_key_stays_with_its_precision(self):
        seen = set()
        for user in range(16):
            request = json_request()
            request["parameters"] = {"user": f"user {user}"}
            answers = {ask_json("POST", INFER, request)[1]["parameters"]["precision"] for _ in range(3)}
            self.assertEqual(len(answers), 1)
            seen |= answers
        self.assertEqual(seen, {"fp32", "int8"})

    def test_requests_count_alike(self):
        def count():
            stats = ask_json("GET", "/v2/models/glyphs/stats")[1]["model_stats"][0]
            grpc_stats = stub.ModelStatistics(messages.ModelStatisticsRequest(name="glyphs"), timeout=20).model_stats[0]
            self.assertEqual(stats["inference_stats"]["success"]["count"], grpc_stats.inference_stats.success.count)
            return stats["inference_count"]

        before = count()
        ask_json("POST", INFER, json_request(4))
        stub.ModelInfer(grpc_request(2), timeout=20)
        self.assertEqual(count() - before, 6)


class DescriptionTest(unittest.TestCase):
    def test_health(self):
        self.assertEqual(ask_json("GET", "/v2/health/live"), (200, {"live": True}))
        self.assertEqual(ask_json("GET", "/v2/health/ready"), (200, {"ready": True}))
        self.assertEqual(ask_json("GET", "/v2/models/glyphs/versions/1/ready")[0], 200)
        self.assertEqual(ask_json("GET", "/v2/models/garbage/ready")[0], 503)

    def same(self, path, rpc, as_message=lambda told: told, body=None, **fields):
        """Holds what a path tells, a GET without a body, to the answer of gRPC; as_message: of the JSON, where it is not the message's own."""
        with self.subTest(path=path, **fields):
            status, told = ask_json("GET" if body is None else "POST", path, body)
            self.assertEqual(status, 200, told)
            answer = getattr(stub, rpc)(getattr(messages, rpc + "Request")(**fields), timeout=20)
            self.assertEqual(json_format.ParseDict(as_message(told), type(answer)()), answer)
            return told

    def test_the_server_is_described_as_over_grpc(self):
        told = self.same("/v2", "ServerMetadata")
        for extension in ("binary_tensor_data", "schedule_policy", "system_shared_memory"):
            self.assertIn(extension, told["extensions"])
        self.same("/v2/health/live", "ServerLive")
        self.same("/v2/health/ready", "ServerReady")
        self.same("/v2/repository/index", "RepositoryIndex", lambda rows: {"models": rows}, {})
        self.same("/v2/repository/index", "RepositoryIndex", lambda rows: {"models": rows}, {"ready": True}, ready=True)
        self.same("/v2/models/stats", "ModelStatistics")

    def test_models_are_described_as_over_grpc(self):
        for path, version in (("/v2/models/glyphs", ""), ("/v2/models/glyphs/versions/1", "1"), ("/v2/models/glyphs/versions/int8", "int8")):
            model = self.same(path, "ModelMetadata", name="glyphs", version=version)
            self.assertEqual(model["inputs"], [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 32, 32]}])
            self.assertEqual(model["properties"]["wire.image"], "UINT8")
            config = self.same(path + "/config", "ModelConfig", lambda told: {"config": told}, name="glyphs", version=version)
            self.assertEqual((config["max_batch_size"], config["input"][0]["data_type"]), (8, "TYPE_FP32"))
            self.assertEqual(config["version_policy"], {"latest": {"num_versions": 1}})
            self.same(path + "/ready", "ModelReady", lambda told: {"ready": told["ready"]}, name="glyphs", version=version)
            if version != "int8":
                self.same(path + "/stats", "ModelStatistics", name="glyphs", version=version)

    def test_settings_and_memory_are_described_as_over_grpc(self):
        def log_settings(told):
            kinds = {bool: "bool_param", int: "uint32_param", str: "string_param"}
            return {"settings": {name: {kinds[type(value)]: value} for name, value in told.items()}}

        def trace_settings(told):
            return {"settings": {name: {"value": value if isinstance(value, list) else [value]} for name, value in told.items()}}

        def regions(rows):
            return {"regions": {row["name"]: row for row in rows}}

        self.same("/v2/logging", "LogSettings", log_settings)
        self.same("/v2/trace/setting", "TraceSetting", trace_settings)
        self.same("/v2/models/glyphs/trace/setting", "TraceSetting", trace_settings, model_name="glyphs")
        memory = multiprocessing.shared_memory.SharedMemory(create=True, size=64)
        self.addCleanup(memory.unlink)
        self.addCleanup(memory.close)
        self.addCleanup(ask_json, "POST", "/v2/systemsharedmemory/unregister")
        region = {"key": "/" + memory.name, "offset": 16, "byte_size": 48}
        self.assertEqual(ask_json("POST", "/v2/systemsharedmemory/region/told/register", region), (200, {}))
        for path, name in (("", ""), ("/region/told", "told")):
            told = self.same(f"/v2/systemsharedmemory{path}/status", "SystemSharedMemoryStatus", regions, name=name)
            self.assertEqual(told, [{"name": "told", **region}])
        self.same("/v2/cudasharedmemory/status", "CudaSharedMemoryStatus", regions)

    def test_the_repository(self):
        status, index = ask_json("POST", "/v2/repository/index")
        self.assertEqual(status, 200)
        self.assertEqual({row["name"]: row["state"] for row in index}["garbage"], "UNAVAILABLE")
        self.assertNotIn("garbage", {row["name"] for row in ask_json("POST", "/v2/repository/index", {"ready": True})[1]})
        self.assertEqual(ask_json("POST", "/v2/repository/models/nan/unload"), (200, {}))
        self.assertEqual(ask_json("GET", "/v2/models/nan/ready")[0], 503)
        self.assertEqual(ask_json("POST", "/v2/repository/models/nan/load"), (200, {}))
        self.assertEqual(ask_json("GET", "/v2/models/nan/ready")[0], 200)


class LoggingTest(unittest.TestCase):
    def test_the_level_changes_at_once(self):
        def mark(name):
            """Asks for an inference that the access log would show; returns whether it did."""
            self.assertEqual(ask_json("POST", INFER, {**json_request(), "id": name})[0], 200)
            return f"id={name}" in server.log.read_text()

        self.addCleanup(ask_json, "POST", "/v2/logging", {"log_error": True, "log_warning": True, "log_info": True})
        self.assertTrue(mark("before"))
        status, settings = ask_json("POST", "/v2/logging", {"log_info": False})
        self.assertEqual((status, settings["log_info"], settings["log_warning"]), (200, False, True))
        self.assertFalse(mark("silent"))
        answer = stub.LogSettings(messages.LogSettingsRequest(), timeout=20)
        self.assertFalse(answer.settings["log_info"].bool_param)
        request = messages.LogSettingsRequest()
        request.settings["log_info"].bool_param = True
        request.settings["log_verbose_level"].uint32_param = 1
        self.assertEqual(stub.LogSettings(request, timeout=20).settings["log_verbose_level"].uint32_param, 1)
        self.assertEqual(ask_json("GET", "/v2/logging")[1]["log_verbose_level"], 1)
        self.assertTrue(mark("after"))
        self.assertEqual(ask_json("POST", "/v2/logging", {"log_verbose_level": 0})[0], 200)
        for wrong in ({"log_warning": False}, {"log_file": "/tmp/x"}, {"log_info": 1}, {"nothing": True}):
            self.assertEqual(ask_json("POST", "/v2/logging", wrong)[0], 400, wrong)


# gRPC's code -> HTTP's.
CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class ErrorTest(unittest.TestCase):
    def test_both_protocols_refuse_alike(self):
        def change_grpc(request, part, key, value):
            if part == "model":
                request.model_name = value
            elif part == "parameters":
                field = {str: "string_param", int: "int64_param", bool: "bool_param"}[type(value)]
                setattr(request.parameters[key], field, value)
            elif key == "shape":
                request.inputs[0].shape[:] = value
            elif part == "output":
                request.outputs.add(name=value)
            else:
                setattr(request.inputs[0], key, value)

        def change_http(request, part, key, value):
            if part == "parameters":
                request["parameters"][key] = value
            elif part == "output":
                request["outputs"] = [{"name": value}]
            elif part == "input":
                request["inputs"][0][key] = value

        for part, key, value in (
            ("model", "", "nobody"),
            ("model", "", "garbage"),
            ("parameters", "precision", "int3"),
            ("parameters", "precision", "bf16"),
            ("parameters", "timeout", 1),
            ("parameters", "timeout", -1),
            ("parameters", "triton_x", True),
            ("input", "name", "picture"),
            ("input", "datatype", "INT9"),
            ("input", "shape", [1, 3, 32, 31]),
            ("input", "shape", [1, 3, 32]),
            ("input", "shape", [-1, 3, 32, 32]),
            ("input", "shape", [2**62, 3, 32, 32]),
            ("output", "", "answer"),
        ):
            with self.subTest(part=part, key=key, value=value):
                request = grpc_request()
                change_grpc(request, part, key, value)
                with self.assertRaises(grpc.RpcError) as caught:
                    stub.ModelInfer(request, timeout=20)
                body = json_request()
                change_http(body, part, key, value)
                model = value if part == "model" else "glyphs"
                status, answer = ask_json("POST", f"/v2/models/{model}/infer", body)
                self.assertEqual(status, CODES[caught.exception.code()])
                self.assertEqual(answer, {"error": caught.exception.details()})

    def test_a_body_beyond_the_limit(self):
        body = b" " * (served_models.MAX_MESSAGE_BYTES + 1)
        status, _, answer = ask("POST", INFER, body)
        self.assertEqual(status, 413)
        self.assertIn("too large", json.loads(answer)["error"])

    def test_damaged_requests_do_no_harm(self):
        body, headers = binary_request()
        head = int(headers["Inference-Header-Content-Length"])
        generator = random.Random(SEED)
        connection = http.client.HTTPConnection(server.http, timeout=30)
        for round_ in range(400):
            damaged = bytearray(body)
            for _ in range(generator.randint(1, 4)):
                damaged[generator.randrange(head)] = generator.randrange(256)
            length = str(generator.choice([head, head, -1, 0, head - 1, head + 1, 2**64, 10**30, "x"]))
            status, _, answer = ask("POST", INFER, bytes(damaged), {"Inference-Header-Content-Length": length}, connection)
            self.assertIn(status, (200, 400, 404, 504), f"seed {SEED}, round {round_}: {answer[:200]}")
        connection.close()
        self.assertEqual(ask("POST", INFER, body, headers)[0], 200)


class SharedMemoryTest(unittest.TestCase):
    def setUp(self):
        count = len(served_models.LABELS)
        self.memory = multiprocessing.shared_memory.SharedMemory(create=True, size=IMAGES[0].nbytes + 4 * count)
        self.addCleanup(self.memory.unlink)
        self.addCleanup(self.memory.close)
        self.memory.buf[: IMAGES[0].nbytes] = IMAGES[0].tobytes()
        self.parameters = {"shared_memory_region": "in", "shared_memory_byte_size": IMAGES[0].nbytes}
        self.output_parameters = {"shared_memory_region": "out", "shared_memory_byte_size": 4 * count}
        self.output = ask_json("GET", "/v2/models/glyphs")[1]["outputs"][0]["name"]
        self.addCleanup(ask_json, "POST", "/v2/systemsharedmemory/unregister")
        region = {"key": "/" + self.memory.name, "byte_size": IMAGES[0].nbytes}
        self.assertEqual(ask_json("POST", "/v2/systemsharedmemory/region/in/register", region), (200, {}))
        stub.SystemSharedMemoryRegister(
            messages.SystemSharedMemoryRegisterRequest(
                name="out", key="/" + self.memory.name, offset=IMAGES[0].nbytes, byte_size=4 * count
            )
        )

    def logits(self):
        return numpy.frombuffer(bytes(self.memory.buf[IMAGES[0].nbytes :]), numpy.float32)[: len(served_models.LABELS)]

    def over_http(self):
        return ask_json(
            "POST",
            INFER,
            {
                "parameters": {"precision": "fp32"},
                "inputs": [image_input(parameters=self.parameters)],
                "outputs": [{"name": self.output, "parameters": self.output_parameters}],
            },
        )

    def over_grpc(self):
        request = grpc_request()
        del request.raw_input_contents[:]
        output = request.outputs.add(name=self.output)
        for tensor, parameters in ((request.inputs[0], self.parameters), (output, self.output_parameters)):
            for key, value in parameters.items():
                setattr(tensor.parameters[key], "string_param" if isinstance(value, str) else "int64_param", value)
        return stub.ModelInfer(request, timeout=20)

    def test_both_protocols_read_and_write_it(self):
        expected = grpc_logits()
        status, answer = self.over_http()
        self.assertEqual(status, 200, answer)
        self.assertEqual(answer["outputs"][0]["parameters"], self.output_parameters)
        self.assertNotIn("data", answer["outputs"][0])
        numpy.testing.assert_array_equal(self.logits(), expected)
        self.memory.buf[IMAGES[0].nbytes :] = bytes(len(self.memory.buf) - IMAGES[0].nbytes)
        response = self.over_grpc()
        self.assertEqual(response.outputs[0].parameters["shared_memory_region"].string_param, "out")
        self.assertEqual(list(response.raw_output_contents), [b""])
        numpy.testing.assert_array_equal(self.logits(), expected)

    def test_status_of_both(self):
        regions = stub.SystemSharedMemoryStatus(messages.SystemSharedMemoryStatusRequest()).regions
        told = {row["name"]: row for row in ask_json("GET", "/v2/systemsharedmemory/status")[1]}
        self.assertEqual(set(told), {"in", "out"})
        self.assertEqual(set(regions), {"in", "out"})
        self.assertEqual(regions["out"].offset, told["out"]["offset"])
        self.assertEqual(ask_json("POST", "/v2/systemsharedmemory/region/in/unregister"), (200, {}))
        self.assertEqual(self.over_http()[0], 404)

    def test_an_object_that_shrinks_harms_nobody_else(self):
        with open(f"/dev/shm/{self.memory.name}", "r+b") as file:
            file.truncate(100)
            status, answer = self.over_http()
            self.assertEqual(status, 400)
            self.assertIn("has become smaller", answer["error"])
            with self.assertRaises(grpc.RpcError) as caught:
                self.over_grpc()
            self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertEqual(caught.exception.details(), answer["error"])
            self.assertEqual(len(grpc_logits()), len(served_models.LABELS))
            file.truncate(self.memory.size)


class ZLastTest(unittest.TestCase):
    """Runs last: unittest goes by name."""

    def test_each_request_is_a_line_of_the_access_log(self):
        request = json_request()
        request["id"] = "find me"
        ask_json("POST", INFER, request)
        lines = [line for line in server.log.read_text().splitlines() if 'id="find me"' in line]
        self.assertEqual(len(lines), 1, lines)
        for word in ("event=request", "model=glyphs", "precision=fp32", "code=OK"):
            self.assertIn(word, lines[0])


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
