"""Traces of requests, as a collector that speaks OTLP over gRPC gets them."""

import concurrent.futures
import json
import queue
import signal
import socket
import time
import unittest
import urllib.request

import grpc
import octet_process
import served_glyphs
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
STAGES = ["decode", "queue", "compute_input", "compute_infer", "compute_output"]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Listens on a free port; keeps what it gets."""

    def __init__(self):
        self._traces = {}
        self._arrived = queue.Queue()
        self.services = set()
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self._server.stop(None).wait()

    def Export(self, request, context):  # noqa: N802
        del context
        for resource in request.resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            self.services.add(names["service.name"])
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self._arrived.put(span)
        return trace_service_pb2.ExportTraceServiceResponse()

    def wait_for(self, trace, spans, seconds=20):
        """Returns the spans of a trace (hex) once it has that many; raises queue.Empty when they do not come."""
        end = time.monotonic() + seconds
        while len(self._traces.get(trace, [])) < spans:
            self._keep(self._arrived.get(timeout=max(0.001, end - time.monotonic())))
        return self._traces[trace]

    def all(self):
        """Returns {trace (hex): spans} of what has come so far."""
        while not self._arrived.empty():
            self._keep(self._arrived.get())
        return self._traces

    def _keep(self, span):
        self._traces.setdefault(span.trace_id.hex(), []).append(span)


def by_name(spans):
    """Returns {name: span}. The names differ."""
    names = {span.name: span for span in spans}
    assert len(names) == len(spans), [span.name for span in spans]
    return names


def attributes(span):
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}


def traceparent(trace, sampled=True):
    return f"00-{trace}-{SPAN_ID}-{'01' if sampled else '00'}"


class TracesTest(unittest.TestCase):
    def served(self, port, rate, more=""):
        tracing = f"tracing: {{otlp_endpoint: 'http://127.0.0.1:{port}', rate: {rate}}}\n"
        return served_glyphs.Served(octet_process._executable, "", configuration=tracing + more)

    def test_a_callers_trace_goes_on_over_both_protocols(self):
        with Collector() as collector, self.served(collector.port, 1_000_000) as served:
            request = served.request(0)
            request.id = "first"
            served.stub.ModelInfer(request)  # one of a million
            served.stub.ModelInfer(request, metadata=[("traceparent", traceparent(TRACE_ID))])
            spans = by_name(collector.wait_for(TRACE_ID, 6))
            root = spans["infer glyphs"]
            self.assertEqual(root.parent_span_id.hex(), SPAN_ID)
            self.assertEqual(root.kind, trace_pb2.Span.SPAN_KIND_SERVER)
            said = attributes(root)
            self.assertEqual((said["octet.request.id"], said["octet.model"], said["octet.version"]), ("first", "glyphs", "1"))
            self.assertEqual((said["octet.precision"], said["octet.rows"]), ("fp32", 1))
            before = root.start_time_unix_nano
            for stage in STAGES:
                span = spans[stage]
                self.assertEqual(span.parent_span_id, root.span_id, stage)
                self.assertGreaterEqual(span.start_time_unix_nano, before - 1000, stage)
                self.assertLessEqual(span.end_time_unix_nano, root.end_time_unix_nano + 1000, stage)
                before = span.start_time_unix_nano
            self.assertLess(abs(time.time() - root.start_time_unix_nano / 1e9), 60)

            other = TRACE_ID[::-1]
            body = json.dumps({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1], "data": [1]}]}).encode()
            address = f"http://{served.server.http}/v2/models/glyphs/infer"
            refused = urllib.request.Request(address, body, {"traceparent": traceparent(other)})
            with self.assertRaises(urllib.error.HTTPError):
                urllib.request.urlopen(refused, timeout=20)
            root = by_name(collector.wait_for(other, 1))["infer glyphs"]
            self.assertEqual(root.status.code, trace_pb2.Status.STATUS_CODE_UNSET)  # the client's mistake
            self.assertIn("image", attributes(root)["octet.error"])
            self.assertEqual(set(collector.all()), {TRACE_ID, other})
            self.assertEqual(collector.services, {"octet"})

    def test_each_step_of_a_pipeline_is_a_span_with_its_stages(self):
        pipeline = (
            "pipeline: {steps: {exact: {model: glyphs, precision: fp32}, fast: {model: glyphs, precision: int8}}, "
            "outputs: {exact: exact.logits, fast: fast.logits}}\n"
        )
        with Collector() as collector, self.served(collector.port, 1_000_000) as served:
            folder = served.models / "both"
            folder.mkdir()
            (folder / "model.yaml").write_text(pipeline)
            served.stub.RepositoryModelLoad(served_glyphs.messages.RepositoryModelLoadRequest(model_name="both"), timeout=60)
            request = served.request(0)
            request.model_name = "both"
            request.inputs[0].datatype = "FP32"  # of several readers
            request.raw_input_contents[0] = served.images[0].astype("float32").tobytes()
            served.stub.ModelInfer(request, metadata=[("traceparent", traceparent(TRACE_ID))])
            spans = collector.wait_for(TRACE_ID, 12)
            by_id = {span.span_id: span for span in spans}
            root = next(span for span in spans if span.name == "infer both")
            self.assertEqual([span.name for span in spans if span.parent_span_id == root.span_id and span.name == "decode"], ["decode"])
            for step, precision in (("exact", "fp32"), ("fast", "int8")):
                span = next(span for span in spans if span.name == f"step {step}")
                self.assertEqual(by_id[span.parent_span_id], root)
                said = attributes(span)
                self.assertEqual((said["octet.step"], said["octet.model"], said["octet.version"]), (step, "glyphs", "1"))
                self.assertEqual((said["octet.precision"], said["octet.route"]), (precision, "explicit"))
                below = [stage for stage in spans if stage.parent_span_id == span.span_id]
                self.assertEqual(sorted(stage.name for stage in below), sorted(STAGES[1:]))
                for stage in [*below, span]:
                    self.assertGreaterEqual(stage.start_time_unix_nano, root.start_time_unix_nano - 1000, stage.name)
                    self.assertLessEqual(stage.end_time_unix_nano, root.end_time_unix_nano + 1000, stage.name)

    def test_settings_change_at_once(self):
        settings = served_glyphs.messages.TraceSettingRequest
        with Collector() as collector, self.served(collector.port, 2) as served:
            self.assertIn("trace", served.stub.ServerMetadata(served_glyphs.messages.ServerMetadataRequest()).extensions)
            for number in range(4):
                served.stub.ModelInfer(served.request(number))
            off = settings(model_name="glyphs")
            off.settings["trace_level"].value.append("OFF")
            self.assertEqual(list(served.stub.TraceSetting(off).settings["trace_level"].value), ["OFF"])
            self.assertEqual(list(served.stub.TraceSetting(settings()).settings["trace_level"].value), ["TIMESTAMPS"])
            for number in range(4):
                served.stub.ModelInfer(served.request(number))
            address = f"http://{served.server.http}/v2/models/glyphs/trace/setting"
            body = json.dumps({"trace_level": None, "trace_rate": "1", "trace_count": "1"}).encode()
            with urllib.request.urlopen(urllib.request.Request(address, body), timeout=20) as answer:
                told = json.load(answer)
            self.assertEqual((told["trace_level"], told["trace_rate"], told["trace_count"]), (["TIMESTAMPS"], "1", "1"))
            for number in range(4):
                served.stub.ModelInfer(served.request(number))
            with self.assertRaises(grpc.RpcError) as caught:
                served.stub.TraceSetting(settings(model_name="nobody"))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
            # The end of the process sends what waits.
            served.server.stop()
            self.assertEqual([len(spans) for spans in collector.all().values()], [6, 6, 6])

    def test_a_collector_that_is_away_costs_nothing(self):
        # Bound, so that nobody else gets the port, and not listening: connections are refused.
        with socket.socket() as away:
            away.bind(("127.0.0.1", 0))
            self.traced_in_vain(away.getsockname()[1])

    def traced_in_vain(self, port):
        with self.served(port, 1) as served:
            for number in range(50):
                self.assertEqual(served.stub.ModelInfer(served.request(number)).model_name, "glyphs")
            began = time.monotonic()
            served.server.process.send_signal(signal.SIGTERM)
            self.assertEqual(served.server.process.wait(30), 0)
            self.assertLess(time.monotonic() - began, 20)
            self.assertIn("level=error event=tracing message=", served.server.log.read_text())


def setUpModule():  # noqa: N802
    served_glyphs.set_up()


def tearDownModule():  # noqa: N802
    served_glyphs.tear_down()


if __name__ == "__main__":
    octet_process.main()
