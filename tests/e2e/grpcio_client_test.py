#!/usr/bin/env python3
"""Calls every RPC of `octet serve` with Python's grpcio, well and badly.

usage: grpcio_client_test.py OCTET
"""

import importlib
import sys
import unittest

import grpc
import numpy
import served_models
from served_client import ServedClient

OCTET = ""
client = stub = health = messages = health_messages = None
called = set()


class Recording:
    """A stub that notes which methods were called."""

    def __init__(self, wrapped):
        self.wrapped = wrapped

    def __getattr__(self, name):
        called.add(name)
        method = getattr(self.wrapped, name)
        return lambda request, **options: method(request, **{"timeout": 20, **options})


def setUpModule():
    global client, stub, health, messages, health_messages
    client = ServedClient(
        OCTET,
        fill=lambda folder: served_models.make_repository(OCTET, folder),
        configuration=served_models.CONFIGURATION,
        options=[("grpc.max_send_message_length", -1)],
    )
    messages = client.messages
    health_messages = importlib.import_module("proto.health_pb2")
    stub = Recording(client.stub)
    health = Recording(importlib.import_module("proto.health_pb2_grpc").HealthStub(client.channel))


def tearDownModule():
    client.close()


IMAGES, TRUTH = served_models.load_test_set()


def image_request(count=1, **fields):
    """Returns a request for the first `count` images of the test set, as bytes."""
    request = messages.ModelInferRequest(model_name="glyphs", id="an id", **fields)
    request.inputs.add(name="image", datatype="UINT8", shape=[count, *IMAGES.shape[1:]])
    request.raw_input_contents.append(IMAGES[:count].tobytes())
    return request


def real_images(count=1):
    """Returns the images as the model's own reals."""
    return ((IMAGES[:count].astype(numpy.float32) - 127.5) * numpy.float32(0.00784313725)).astype(numpy.float32)


def logits(response, index=0):
    shape = response.outputs[index].shape
    return numpy.frombuffer(response.raw_output_contents[index], numpy.float32).reshape(shape)


class InferTest(unittest.TestCase):
    def test_both_precisions_read_the_images(self):
        for precision in ("fp32", "int8"):
            with self.subTest(precision):
                right = 0
                for start in range(0, 256, 8):
                    request = image_request(8)
                    request.raw_input_contents[0] = IMAGES[start : start + 8].tobytes()
                    request.parameters["precision"].string_param = precision
                    response = stub.ModelInfer(request)
                    self.assertEqual(response.parameters["precision"].string_param, precision)
                    self.assertEqual(response.parameters["route"].string_param, "explicit")
                    right += int((logits(response).argmax(1) == TRUTH[start : start + 8]).sum())
                self.assertGreater(right, 0.9 * 256)

    def test_the_answer_echoes_the_request(self):
        response = stub.ModelInfer(image_request())
        self.assertEqual((response.model_name, response.model_version, response.id), ("glyphs", "1", "an id"))
        self.assertEqual(len(response.raw_output_contents), len(response.outputs))
        self.assertEqual(list(response.outputs[0].shape), [1, len(served_models.LABELS)])

    def test_bytes_reals_and_typed_contents_agree(self):
        metadata = [("x-octet-precision", "fp32")]
        as_bytes = stub.ModelInfer(image_request(), metadata=metadata)
        reals = image_request()
        reals.inputs[0].datatype = "FP32"
        reals.raw_input_contents[0] = real_images().tobytes()
        as_reals = stub.ModelInfer(reals, metadata=metadata)
        del reals.raw_input_contents[:]
        reals.inputs[0].contents.fp32_contents.extend(real_images().ravel())
        as_typed = stub.ModelInfer(reals, metadata=metadata)
        words = image_request()
        del words.raw_input_contents[:]
        words.inputs[0].contents.uint_contents.extend(IMAGES[0].ravel().tolist())
        as_words = stub.ModelInfer(words, metadata=metadata)
        for response in (as_reals, as_typed, as_words):
            self.assertEqual(response.parameters["precision"].string_param, "fp32")
            numpy.testing.assert_allclose(logits(response), logits(as_bytes), rtol=1e-4, atol=1e-4)

    def test_a_compressed_request_is_answered_alike(self):
        request = image_request(4)
        request.parameters["precision"].string_param = "fp32"
        plain = logits(stub.ModelInfer(request))
        for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            numpy.testing.assert_array_equal(logits(stub.ModelInfer(request, compression=compression)), plain)
            (answer,) = stub.ModelStreamInfer(iter([request]), compression=compression)
            numpy.testing.assert_array_equal(logits(answer.infer_response), plain)

    def test_a_sticky_key_stays_with_its_precision(self):
        seen = set()
        for user in range(16):
            request = image_request()
            request.parameters["user"].string_param = f"user {user}"
            answers = {stub.ModelInfer(request).parameters["precision"].string_param for _ in range(3)}
            self.assertEqual(len(answers), 1)
            seen |= answers
        self.assertEqual(seen, {"fp32", "int8"})

    def test_classification_gives_the_best_classes(self):
        request = image_request(2)
        request.parameters["precision"].string_param = "fp32"
        best = logits(stub.ModelInfer(request))
        name = stub.ModelMetadata(messages.ModelMetadataRequest(name="glyphs")).outputs[0].name
        request.outputs.add(name=name).parameters["classification"].int64_param = 3
        response = stub.ModelInfer(request)
        self.assertEqual(response.outputs[0].datatype, "BYTES")
        self.assertEqual(list(response.outputs[0].shape), [2, 3])
        raw = response.raw_output_contents[0]
        length = int.from_bytes(raw[:4], "little")
        score, index, label = raw[4 : 4 + length].decode().split(":")
        self.assertEqual(int(index), best[0].argmax())
        self.assertEqual(label, served_models.LABELS[int(index)])
        self.assertAlmostEqual(float(score), best[0].max(), places=4)

    def test_a_deadline_that_has_passed_is_told(self):
        request = image_request()
        request.parameters["timeout"].int64_param = 1
        with self.assertRaises(grpc.RpcError) as caught:
            stub.ModelInfer(request)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)

    def test_a_stream_answers_in_order_and_survives_errors(self):
        requests = []
        for number in range(40):
            request = image_request()
            request.id = str(number)
            if number % 10 == 3:
                request.inputs[0].name = "picture"
            requests.append(request)
        responses = list(stub.ModelStreamInfer(iter(requests)))
        self.assertEqual([r.infer_response.id for r in responses], [str(n) for n in range(40)])
        for number, response in enumerate(responses):
            if number % 10 == 3:
                self.assertIn('unknown input "picture"', response.error_message)
            else:
                self.assertEqual(response.error_message, "")
                self.assertEqual(len(response.infer_response.raw_output_contents), 1)


class DescriptionTest(unittest.TestCase):
    def test_live_ready_and_metadata(self):
        self.assertTrue(stub.ServerLive(messages.ServerLiveRequest()).live)
        self.assertTrue(stub.ServerReady(messages.ServerReadyRequest()).ready)
        metadata = stub.ServerMetadata(messages.ServerMetadataRequest())
        self.assertEqual(metadata.name, "octet")
        self.assertIn("statistics", metadata.extensions)
        for name, ready in (("glyphs", True), ("garbage", False), ("nobody", False)):
            self.assertEqual(stub.ModelReady(messages.ModelReadyRequest(name=name)).ready, ready, name)

    def test_model_metadata_and_configuration(self):
        metadata = stub.ModelMetadata(messages.ModelMetadataRequest(name="glyphs"))
        self.assertEqual(list(metadata.versions), ["1"])
        self.assertEqual(list(metadata.inputs[0].shape), [-1, 3, 32, 32])
        self.assertEqual(metadata.properties["precisions"], "fp32,int8")
        self.assertEqual(metadata.properties["wire.image"], "UINT8")
        config = stub.ModelConfig(messages.ModelConfigRequest(name="glyphs", version="1")).config
        self.assertEqual(config.max_batch_size, 8)
        self.assertEqual(list(config.input[0].dims), [3, 32, 32])
        self.assertEqual(config.input[0].data_type, messages.TYPE_FP32)

    def test_statistics_count(self):
        request = messages.ModelStatisticsRequest(name="glyphs")
        before = stub.ModelStatistics(request).model_stats[0]
        stub.ModelInfer(image_request(4))
        after = stub.ModelStatistics(request).model_stats[0]
        self.assertEqual(after.inference_count - before.inference_count, 4)
        self.assertEqual(after.execution_count - before.execution_count, 1)
        self.assertEqual(after.inference_stats.success.count - before.inference_stats.success.count, 1)
        self.assertGreater(after.inference_stats.compute_infer.ns, before.inference_stats.compute_infer.ns)
        self.assertGreater(after.memory_usage[0].byte_size, 100_000)

    def test_index_gives_reasons(self):
        index = {m.name: m for m in stub.RepositoryIndex(messages.RepositoryIndexRequest()).models}
        self.assertEqual(index["glyphs"].state, "READY")
        for name in ("garbage", "hollow"):
            self.assertEqual(index[name].state, "UNAVAILABLE", index[name])
            self.assertTrue(index[name].reason, name)
        ready = stub.RepositoryIndex(messages.RepositoryIndexRequest(ready=True)).models
        self.assertNotIn("garbage", {m.name for m in ready})

    def test_a_model_is_unloaded_and_loaded(self):
        request = messages.RepositoryModelUnloadRequest(model_name="nan")
        request.parameters["unload_dependents"].bool_param = False
        stub.RepositoryModelUnload(request)
        self.assertFalse(stub.ModelReady(messages.ModelReadyRequest(name="nan")).ready)
        stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name="nan"))
        self.assertTrue(stub.ModelReady(messages.ModelReadyRequest(name="nan")).ready)

    def test_shared_memory_is_empty_and_cannot_be_registered(self):
        self.assertFalse(stub.SystemSharedMemoryStatus(messages.SystemSharedMemoryStatusRequest()).regions)
        self.assertFalse(stub.CudaSharedMemoryStatus(messages.CudaSharedMemoryStatusRequest()).regions)
        stub.SystemSharedMemoryUnregister(messages.SystemSharedMemoryUnregisterRequest())
        stub.CudaSharedMemoryUnregister(messages.CudaSharedMemoryUnregisterRequest())
        for method, request in (
            (stub.SystemSharedMemoryRegister, messages.SystemSharedMemoryRegisterRequest(name="a", key="/a", byte_size=1)),
            (stub.CudaSharedMemoryRegister, messages.CudaSharedMemoryRegisterRequest(name="a")),
        ):
            with self.assertRaises(grpc.RpcError) as caught:
                method(request)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_trace_settings_say_that_there_is_no_collector(self):
        settings = stub.TraceSetting(messages.TraceSettingRequest()).settings
        self.assertEqual(list(settings["trace_level"].value), ["OFF"])
        change = messages.TraceSettingRequest()
        change.settings["trace_level"].value.append("TIMESTAMPS")
        with self.assertRaises(grpc.RpcError) as caught:
            stub.TraceSetting(change)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)

    def test_log_settings_are_told(self):
        settings = stub.LogSettings(messages.LogSettingsRequest()).settings
        self.assertTrue(settings["log_info"].bool_param)
        self.assertEqual(settings["log_verbose_level"].uint32_param, 0)

    def test_health(self):
        serving = health_messages.HealthCheckResponse.SERVING
        for service in ("", "inference.GRPCInferenceService", "glyphs"):
            answer = health.Check(health_messages.HealthCheckRequest(service=service))
            self.assertEqual(answer.status, serving, service)
        broken = health.Check(health_messages.HealthCheckRequest(service="garbage"))
        self.assertEqual(broken.status, health_messages.HealthCheckResponse.NOT_SERVING)
        with self.assertRaises(grpc.RpcError) as caught:
            health.Check(health_messages.HealthCheckRequest(service="nobody"))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
        watch = health.Watch(health_messages.HealthCheckRequest())
        self.assertEqual(next(watch).status, serving)
        watch.cancel()

    def test_reflection_lists_the_services(self):
        # ServerReflectionRequest{list_services: ""}: field 7, empty. The answer names services in field 6.
        call = client.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        answer = next(call(iter([b"\x3a\x00"]), timeout=20))
        for name in (b"inference.GRPCInferenceService", b"grpc.health.v1.Health"):
            self.assertIn(name, answer)


class TritonsClientsTest(unittest.TestCase):
    """What perf_analyzer and Triton's C++ and Python clients do without asking."""

    def test_perf_analyzer_asks_before_it_sends(self):
        self.assertIn("statistics", stub.ServerMetadata(messages.ServerMetadataRequest()).extensions)
        metadata = stub.ModelMetadata(messages.ModelMetadataRequest(name="glyphs", version="1"))
        config = stub.ModelConfig(messages.ModelConfigRequest(name="glyphs", version="1")).config
        self.assertGreater(config.max_batch_size, 0)
        self.assertFalse(config.model_transaction_policy.decoupled)
        for told, configured in zip([*metadata.inputs, *metadata.outputs], [*config.input, *config.output], strict=True):
            self.assertEqual((told.name, list(told.shape)), (configured.name, [-1, *configured.dims]))
        before = stub.ModelStatistics(messages.ModelStatisticsRequest(name="glyphs", version="1")).model_stats[0]
        stub.ModelInfer(image_request(4, model_version="1"))
        after = stub.ModelStatistics(messages.ModelStatisticsRequest(name="glyphs", version="1")).model_stats[0]
        for name in ("inference_count", "execution_count", "last_inference"):
            self.assertGreater(getattr(after, name), getattr(before, name), name)
        for name in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
            one, other = (getattr(stats.inference_stats, name) for stats in (before, after))
            self.assertGreater(other.count, one.count, name)
            self.assertGreaterEqual(other.ns, one.ns, name)

    def test_tritons_clients_index_raw_outputs_without_looking(self):
        typed = image_request()
        del typed.raw_input_contents[:]
        typed.inputs[0].contents.uint_contents.extend(IMAGES[0].ravel().tolist())
        classes = image_request()
        classes.outputs.add(name="logits").parameters["classification"].int64_param = 2
        for request in (image_request(), typed, classes):
            response = stub.ModelInfer(request)
            self.assertEqual(len(response.raw_output_contents), len(response.outputs))
            self.assertTrue(all(response.raw_output_contents))
            self.assertFalse(any(output.HasField("contents") for output in response.outputs))

    def test_tritons_clients_send_parameters_of_either_sign(self):
        for priority in ("int64_param", "uint64_param"):
            request = image_request()
            setattr(request.parameters["priority"], priority, 1)
            request.parameters["timeout"].int64_param = 20_000_000
            request.parameters["triton_enable_empty_final_response"].bool_param = True
            request.parameters["binary_data_output"].bool_param = True
            answers = list(stub.ModelStreamInfer(iter([request])))
            self.assertEqual([answer.error_message for answer in answers], [""])
            self.assertEqual(answers[0].infer_response.id, "an id")

    def test_tritons_clients_know_an_unknown_model_by_the_text(self):
        for method, request in (
            (stub.ModelMetadata, messages.ModelMetadataRequest(name="nobody")),
            (stub.ModelConfig, messages.ModelConfigRequest(name="nobody")),
            (stub.ModelInfer, messages.ModelInferRequest(model_name="nobody")),
        ):
            with self.assertRaises(grpc.RpcError) as caught:
                method(request)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
            self.assertTrue(caught.exception.details().startswith("Request for unknown model"), caught.exception.details())


class BadInputTest(unittest.TestCase):
    """Each with the code and the words, and the server answers after it."""

    def refused(self, request, code, *words):
        with self.assertRaises(grpc.RpcError) as caught:
            stub.ModelInfer(request)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        for word in words:
            self.assertIn(word, caught.exception.details())
        self.assertEqual(len(stub.ModelInfer(image_request()).raw_output_contents), 1)

    def invalid(self, change, *words):
        request = image_request()
        change(request)
        self.refused(request, grpc.StatusCode.INVALID_ARGUMENT, *words)

    def test_wrong_datatype(self):
        self.invalid(lambda r: setattr(r.inputs[0], "datatype", "INT64"), '"image"', "FP32 or UINT8", "INT64")
        self.invalid(lambda r: setattr(r.inputs[0], "datatype", "float"), '"image"', '"float"')

    def test_wrong_shape(self):
        self.invalid(lambda r: r.inputs[0].shape.__setitem__(3, 31), '"image"', "[?,3,32,32]", "[1,3,32,31]")
        self.invalid(lambda r: r.inputs[0].shape.pop(), '"image"', "shape")
        self.invalid(lambda r: r.inputs[0].shape.__setitem__(0, -1), "[-1,3,32,32]")
        self.invalid(lambda r: r.inputs[0].shape.__setitem__(0, 2**62), "too many elements")

    def test_more_rows_than_a_batch(self):
        self.refused(image_request(9), grpc.StatusCode.INVALID_ARGUMENT, "at most 8", "got 9")

    def test_wrong_name(self):
        self.invalid(lambda r: setattr(r.inputs[0], "name", "picture"), 'unknown input "picture"', '"image"')
        self.invalid(lambda r: r.outputs.add(name="answer"), 'unknown output "answer"')

    def test_wrong_size_of_raw_bytes(self):
        self.invalid(lambda r: r.raw_input_contents.__setitem__(0, b"\0" * 3071), '"image"', "3072", "3071")

    def test_missing_input(self):
        def change(request):
            del request.inputs[:]
            del request.raw_input_contents[:]

        self.invalid(change, 'missing input "image"')

    def test_doubled_input(self):
        def change(request):
            request.inputs.add().CopyFrom(request.inputs[0])
            request.raw_input_contents.append(request.raw_input_contents[0])

        self.invalid(change, '"image" comes twice')

    def test_raw_and_typed(self):
        self.invalid(lambda r: r.inputs[0].contents.uint_contents.append(1), '"image"', "both")

    def test_number_of_raw_contents(self):
        self.invalid(lambda r: r.raw_input_contents.append(b""), "raw_input_contents", "got 2")

    def test_unknown_model_version_and_precision(self):
        request = image_request()
        request.model_name = "nobody"
        self.refused(request, grpc.StatusCode.NOT_FOUND, "Request for unknown model")
        request = image_request(model_version="7")
        self.refused(request, grpc.StatusCode.NOT_FOUND, "Request for unknown model", "7")
        self.refused(image_request(model_version="newest"), grpc.StatusCode.INVALID_ARGUMENT, "newest")
        request = image_request()
        request.parameters["precision"].string_param = "bf16"
        self.refused(request, grpc.StatusCode.NOT_FOUND, "bf16")
        request.parameters["precision"].string_param = "int3"
        self.refused(request, grpc.StatusCode.INVALID_ARGUMENT, "int3")

    def test_models_that_did_not_load(self):
        for name in ("garbage", "hollow"):
            request = image_request()
            request.model_name = name
            self.refused(request, grpc.StatusCode.UNAVAILABLE, name)

    def test_an_oversized_message(self):
        request = image_request()
        request.raw_input_contents[0] = b"\0" * (served_models.MAX_MESSAGE_BYTES + 1)
        self.refused(request, grpc.StatusCode.RESOURCE_EXHAUSTED)

    def test_unknown_parameters_of_another_server(self):
        self.invalid(lambda r: setattr(r.parameters["triton_x"], "bool_param", True), "triton_x")

    def test_weights_that_are_no_numbers_answer_and_harm_nobody(self):
        request = image_request()
        request.model_name = "nan"
        request.inputs[0].datatype = "FP32"
        request.raw_input_contents[0] = real_images().tobytes()
        self.assertTrue(numpy.isnan(logits(stub.ModelInfer(request))).any())
        self.assertTrue(numpy.isfinite(logits(stub.ModelInfer(image_request()))).all())


class ZLastTest(unittest.TestCase):
    """Runs last: unittest goes by name."""

    def test_every_method_was_called(self):
        services = [
            messages.DESCRIPTOR.services_by_name["GRPCInferenceService"],
            health_messages.DESCRIPTOR.services_by_name["Health"],
        ]
        self.assertEqual({method.name for service in services for method in service.methods} - called, set())

    def test_each_request_is_a_line_of_the_access_log(self):
        request = image_request()
        request.id = "find me"
        stub.ModelInfer(request)
        lines = [line for line in client.server.log.read_text().splitlines() if 'id="find me"' in line]
        self.assertEqual(len(lines), 1, lines)
        for word in ("event=request", "model=glyphs", "version=1", "precision=", "code=OK", "total_us="):
            self.assertIn(word, lines[0])

    def test_a_long_text_is_cut_in_the_access_log(self):
        request = image_request()
        request.id = "long" + "\u20ac" * 100_000
        stub.ModelInfer(request)
        lines = [line for line in client.server.log.read_text().splitlines() if 'id="long' in line or "id=long" in line]
        self.assertEqual(len(lines), 1)
        self.assertLess(len(lines[0]), 2000)
        self.assertNotIn("\\x", lines[0])


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
