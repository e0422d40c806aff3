#!/usr/bin/env python3
"""The page at the HTTP port in a browser, while somebody is answered: its numbers are those of the metrics.

usage: status_page_test.py OCTET
"""

import copy
import json
import re
import shutil
import subprocess
import sys
import time
import unittest
import urllib.request

import grpc
import numpy
import onnx
import served_glyphs
from browser import opened
from served_glyphs import Served
from stand_in import StandIn

OCTET = ""
REQUESTS = 120
ROUTING = """routing:
  split: {fp32: 1, int8: 1}
  shadow: {precision: int8, against: fp32, percent: 100, max_queue_requests: 10000}
  guard: {int8: {error_percent: 50}}
"""
INDEX = "What the index says"
PIPELINE = "Requests since its models were last changed"
PRECISIONS = "Precisions since their traffic was last changed"
SHADOW = "Shadow copies against the answers"
EVENTS = "What guards and ramps did"
BACK = 'model="glyphs",version="1",precision="int8",action="back"'


# What the page cannot say itself.
TELL = """<script>
setTimeout(() => document.querySelector("details").open = true, 3000);
setTimeout(() => {
  const charts = [...document.querySelectorAll("canvas")].map((canvas) => Chart.getChart(canvas));
  const painted = ({ canvas }) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte);
  const tell = document.body.appendChild(document.createElement("pre"));
  tell.id = "seen";
  tell.textContent = JSON.stringify({
    painted: charts.map(painted),
    lines: charts.map((chart) => chart.data.datasets.map(({ label, data, borderDash, pointStyle }) => [label, data.map(({ x, y }) => [x, y]), borderDash ?? [], pointStyle])),
    wider: document.documentElement.scrollWidth - innerWidth,
    widths: charts.map((chart) => chart.canvas.getBoundingClientRect().width / document.querySelector("main").clientWidth),
    spans: charts.map((chart) => chart.scales.x.max - chart.scales.x.min),
    lying: [...document.querySelectorAll("td.number")].filter((cell) => cell.clientHeight > 40).map((cell) => cell.textContent),
  });
}, 4500);
</script>"""


def watched(server, before_look=lambda: None):
    """Returns what gives what the server gives, its page with TELL in it; `before_look` is called each time that the page asks for its numbers."""

    def before(path):
        if path == "/v2/experiments":
            before_look()

    def change(path, body):
        return body.replace(b"</body>", TELL.encode() + b"</body>") if path == "/" else body

    return StandIn(server, before, change)


# What is left of what the page has shown, after four seconds; a SECONDS of 2 goes with it.
LEFT = """<script>
setTimeout(() => {
  const tell = document.body.appendChild(document.createElement("pre"));
  tell.id = "seen";
  tell.textContent = JSON.stringify({
    charts: Object.keys(Chart.instances).length,
    lines: [...document.querySelectorAll("canvas")].map((canvas) => Chart.getChart(canvas).data.datasets.map(({ label }) => label)),
    rates: Chart.getChart(document.querySelectorAll("canvas")[1])?.data.datasets.map(({ data }) => Math.max(...data.map(({ y }) => y))) ?? [],
    silent: document.getElementById("silent")?.textContent ?? "",
    rows: document.querySelectorAll("tbody tr").length,
  });
}, LATER);
</script>"""


class Changing(StandIn):
    """Gives the page of a server with LEFT in it, and its numbers as `change(look, answer)` makes them.

    look: 1 of the first; later: milliseconds until the page tells; first: a script before the page's own.
    """

    def __init__(self, server, change, later=4500, first=""):
        self.looks = 0

        def changed(path, body):
            if path == "/":
                page = body.decode().replace("const SECONDS = 300;", "const SECONDS = 2;")
                page = page.replace("</body>", LEFT.replace("LATER", str(later)) + "</body>")
                return page.replace('<script src="chart.js">', f'<script>{first}</script><script src="chart.js">').encode()
            if path != "/v2/experiments":
                return body
            self.looks += 1
            return json.dumps(change(self.looks, json.loads(body))).encode()

        super().__init__(server, change=changed)


def write_open(path):
    """x [n, m, 4] -> its product with a matrix: what is computed is known only with a request."""
    tensor, float32 = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    weights = onnx.numpy_helper.from_array(numpy.eye(4, dtype=numpy.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "net", [tensor("x", float32, ["n", "m", 4])], [tensor("y", float32, ["n", "m", 4])], [weights])
    path.parent.mkdir(parents=True)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), path)


def setUpModule():
    served_glyphs.set_up()


def tearDownModule():
    served_glyphs.tear_down()


class Histogram:
    """A variant's request_duration as it is scraped: what Prometheus would make of it, worked out once more."""

    BOUND = re.compile(r',le="(.*)"$')

    def __init__(self, metrics, precision):
        """`metrics`: those of Served."""
        of = f'model="glyphs",version="1",precision="{precision}"'
        found = {}
        for (name, labels), value in metrics.items():
            if name == "octet_request_duration_seconds_bucket" and labels.startswith(of):
                found[float(self.BOUND.search(labels)[1])] = value
        self.bounds, self.upto = zip(*sorted(found.items()))

    def since(self, before):
        later = copy.copy(self)
        later.upto = tuple(now - then for now, then in zip(self.upto, before.upto, strict=True))
        return later

    @property
    def count(self):
        return self.upto[-1]

    def quantile_us(self, q):
        """In proportion within the bucket that the quantile lies in."""
        i = next(i for i, upto in enumerate(self.upto) if upto >= q * self.count)
        low, below = (self.bounds[i - 1], self.upto[i - 1]) if i > 0 else (0, 0)
        return 1e6 * (low + (self.bounds[i] - low) * (q * self.count - below) / (self.upto[i] - below))


def rows(table):
    """Returns {first cell: {column: cell}} of a table."""
    head, *body = table
    return {cells[0]: dict(zip(head, cells, strict=True)) for cells in body}


class StatusPageTest(unittest.TestCase):
    def test_the_page_shows_what_the_metrics_say(self):
        with Served(OCTET, ROUTING) as served:
            served.ask_all(REQUESTS)
            answered = int(served.variant("octet_request_duration_seconds_count", "fp32"))
            served.wait_for_copies(answered)
            document, messages = opened(f"http://{served.server.http}/")
            self.assertEqual(messages, [])
            self.assertEqual(document.headings, ["Octet", "glyphs, version 1"])
            precisions = rows(document.tables[PRECISIONS])
            self.assertEqual(set(precisions), {"fp32", "int8"})
            total = 0
            for name, row in precisions.items():
                count = int(served.variant("octet_request_duration_seconds_count", name))
                total += count
                self.assertEqual(row["requests"], str(count))
                self.assertEqual(row["share"], "50.0 %")
                self.assertEqual((row["errors"], row["refused"]), ("0", "0"))
                mean = 1e6 * served.variant("octet_request_duration_seconds_sum", name) / count
                self.assertAlmostEqual(float(row["mean us"].replace(",", "")), mean, delta=1)
                durations = Histogram(served.metrics(), name)
                for column, q in (("p50 us", 0.5), ("p99 us", 0.99)):
                    self.assertAlmostEqual(float(row[column].replace(",", "")), durations.quantile_us(q), delta=1)
                ratio = 100 * served.variant("octet_int8_mac_ratio", name)
                self.assertEqual(row["int8 multiply-adds"], f"{ratio:.1f} %")
                self.assertEqual(row["rows per batch"], "1.0")
            self.assertEqual(total, REQUESTS)
            self.assertRegex(precisions["int8"]["over baseline us (95 %)"], r"^-?[\d,]+ \(-?[\d,]+ \.\. -?[\d,]+\)$")
            self.assertRegex(precisions["int8"]["state"], r"^\d+ kept, 0 broken$")
            (pair,) = rows(document.tables[SHADOW]).values()
            self.assertEqual(pair["compared"], str(answered))
            print(precisions, pair)

    def test_overload_broken_models_and_pipelines_are_shown(self):
        def change(version):
            models = version.parents[1]
            (models / "broken/1").mkdir(parents=True)
            (models / "broken/1/fp32.onnx").write_bytes(b"\xff" * 1000)
            (version / "bf16.onnx").write_bytes(b"\xff" * 1000)
            (models / "pipe").mkdir()
            (models / "pipe/model.yaml").write_text("pipeline: {steps: {classify: {model: glyphs}}, outputs: {scores: classify.logits}}\n")

        routing = "routing: {split: {fp32: 1, int8: 1}}\nbatching: {max_queue_requests: 1}\n"
        with Served(OCTET, routing, change) as served:
            self.overload(served)
            document, messages = opened(f"http://{served.server.http}/")
            self.assertEqual(messages, [])
            metrics = served.metrics()
            self.assertEqual(document.headings, ["Octet", "glyphs, version 1", "pipe, version 1"])
            total = 0
            for name, row in rows(document.tables[PRECISIONS]).items():
                precision = name.partition(" ")[0]
                of = f'model="glyphs",version="1",precision="{precision}"'
                refused = sum(value for (metric, labels), value in metrics.items() if metric == "octet_refused_requests_total" and labels.startswith(of))
                self.assertEqual(int(row["refused"].partition(" ")[0].replace(",", "")), refused)
                self.assertEqual(row["requests"].replace(",", ""), str(int(metrics["octet_request_duration_seconds_count", of])))
                total += refused
            self.assertGreater(total, 0)
            self.assertRegex(rows(document.tables[PRECISIONS])["bf16 (not ready)"]["state"], r"^not ready: .*not an ONNX model")
            pipe = 'model="pipe",version="1",precision="pipeline"'
            (row,) = rows(document.tables[PIPELINE]).values()
            count = int(metrics["octet_request_duration_seconds_count", pipe])
            self.assertGreater(count, 0)
            self.assertEqual(row["requests"].replace(",", ""), str(count))
            refused = int(metrics["octet_refused_requests_total", f'{pipe},reason="queue_full"'])
            self.assertGreater(refused, 0)
            self.assertEqual(row["refused"].partition(" ")[0].replace(",", ""), str(refused))
            mean = 1e6 * metrics["octet_request_duration_seconds_sum", pipe] / count
            self.assertAlmostEqual(float(row["mean us"].replace(",", "")), mean, delta=1)
            index = {(model, version): (state, reason) for model, version, state, reason in document.tables[INDEX][1:]}
            self.assertEqual(index["broken", "1"][0], "UNAVAILABLE")
            self.assertIn("not an ONNX model", index["broken", "1"][1])
            self.assertRegex(index["glyphs", "1"][1], r"^bf16: .*not an ONNX model")
            for verb in ("top", "experiments"):
                command = [OCTET, verb, "--server", served.server.http, *(("--count", "1") if verb == "top" else ())]
                shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
                self.assertRegex(shown, r"(?m)^broken version 1 UNAVAILABLE: .*not an ONNX model")
                self.assertRegex(shown, r"(?m)^  pipeline ")
                self.assertRegex(shown, r"(?m)^  bf16 .* not ready: ")

    def overload(self, served):
        """Lets the pipeline answer once; then asks it and its model for more than may wait, until both have refused something.

        How many of a burst are refused is a matter of who is faster, the client or the server.
        """
        pixels, requests = served.images[:8], {}
        for model, datatype, values in (("glyphs", "UINT8", pixels), ("pipe", "FP32", pixels.astype(numpy.float32))):
            requests[model] = served_glyphs.messages.ModelInferRequest(model_name=model)
            requests[model].inputs.add(name="image", datatype=datatype, shape=pixels.shape)
            requests[model].raw_input_contents.append(values.tobytes())
        served.stub.ModelInfer(requests["pipe"], timeout=60)
        end, refused = time.monotonic() + 60, set()
        while refused != set(requests):
            self.assertLess(time.monotonic(), end, f"who has refused something: {refused}")
            calls = [(model, served.stub.ModelInfer.future(request, timeout=60)) for _ in range(100) for model, request in requests.items()]
            codes = {(model, call.code()) for model, call in calls}
            self.assertLessEqual({code for _, code in codes}, {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED})
            refused |= {model for model, code in codes if code == grpc.StatusCode.RESOURCE_EXHAUSTED}

    def test_what_a_guard_and_a_ramp_did_is_listed(self):
        routing = """routing:
  shadow: {precision: int8, against: fp32, percent: 100}
  guard: {int8: {agreement_percent: 99, window_seconds: 1, min_samples: 5}}
  ramp: {precision: int8, steps: [10, 100], hold_seconds: 600}
"""
        with Served(OCTET, routing, lambda version: served_glyphs.spoil(version / "int8.onnx")) as served:
            end = time.monotonic() + 60
            while served.metrics()["octet_ramp_actions_total", BACK] == 0:
                self.assertLess(time.monotonic(), end)
                served.ask_all(REQUESTS)
            document, messages = opened(f"http://{served.server.http}/")
            self.assertEqual(messages, [])
            table = document.tables[EVENTS]
            self.assertEqual(table[0], ["time", "whom", "action", "reason"])
            happened = {action: (whom, reason) for _, whom, action, reason in table[1:]}
            self.assertEqual(happened["guard alert"][0], "glyphs/1/int8")
            self.assertRegex(happened["guard alert"][1], r"^agreement \d+\.\d+ % < 99 %$")
            self.assertEqual(happened["ramp back"][0], "glyphs: int8")
            self.assertIn(happened["guard alert"][1], happened["ramp back"][1])
            self.assertEqual(rows(document.tables[PRECISIONS])["int8"]["share"], "0.0 %")
            log = served.server.log.read_text()
            self.assertRegex(log, r"event=guard_action variant=glyphs/1/int8 action=alert")
            self.assertRegex(log, r"event=ramp_action model=glyphs ramped=int8 action=back")
            print(table)

    def test_lines_over_time_are_the_metrics_differ_without_colour_and_fit_a_phone(self):
        with Served(OCTET, ROUTING) as served:
            scraped = []  # {precision: Histogram} at each of the page's looks

            def ask_and_scrape():
                served.ask_all(40 + 30 * len(scraped))
                metrics = served.metrics()
                scraped.append({precision: Histogram(metrics, precision) for precision in ("fp32", "int8")})

            with watched(served.server.http, ask_and_scrape) as stand_in:
                document, messages = opened(f"http://{stand_in.address}/", "--window-size=360,800")
            self.assertEqual(messages, [])
            seen = document.seen
            self.assertLessEqual(seen["wider"], 0)
            self.assertEqual(seen["painted"], [True, True])
            latency, rate = seen["lines"]
            self.assertEqual([label for label, *_ in latency], ["fp32 p50", "int8 p50", "fp32 p99", "int8 p99"])
            self.assertEqual([label for label, *_ in rate], ["fp32", "int8"])
            between = [{precision: now[precision].since(then[precision]) for precision in now} for then, now in zip(scraped, scraped[1:])]
            for label, points, *_ in latency:
                precision, p = label.split(" p")
                self.assertGreaterEqual(len(points), 3, label)
                for (_, ms), looked in zip(points, between):
                    self.assertAlmostEqual(1000 * ms, looked[precision].quantile_us(int(p) / 100), delta=0.01, msg=label)
            for precision, points, *_ in rate:
                self.assertGreaterEqual(len(points), 3, precision)
                for (before, _), (now, per_second), looked in zip(points, points[1:], between[1:]):
                    self.assertAlmostEqual(per_second * (now - before), looked[precision].count, delta=0.01, msg=precision)
            looks = {label: (tuple(dash), point) for label, _, dash, point in rate}
            self.assertNotEqual(looks["fp32"][0], looks["int8"][0])
            self.assertNotEqual(looks["fp32"][1], looks["int8"][1])
            print([{precision: (looked.count, looked.quantile_us(0.5)) for precision, looked in one.items()} for one in between])

    def test_a_wide_screen_is_used_and_what_nobody_asks_takes_no_room(self):
        with Served(OCTET, "routing: {default: fp32}\n") as served:
            with watched(served.server.http, lambda: served.ask_all(30)) as stand_in:
                document, messages = opened(f"http://{stand_in.address}/", "--window-size=1280,800")
            self.assertEqual(messages, [])
            seen = document.seen
            self.assertLessEqual(seen["wider"], 0)
            for width in seen["widths"]:
                self.assertGreater(width, 0.45)
            self.assertEqual(seen["spans"], [30, 30], "no minutes of nothing")
            self.assertEqual(seen["lying"], [], "numbers in more than one line")
            latency, rate = seen["lines"]
            self.assertEqual([label for label, *_ in latency], ["fp32 p50", "fp32 p99"])
            self.assertEqual([label for label, *_ in rate], ["fp32"])
            int8 = rows(document.tables[PRECISIONS])["int8"]
            self.assertEqual((int8["requests"], int8["p50 us"], int8["p99 us"], int8["mean us"]), ("0", "–", "–", "–"))

    def test_what_is_gone_leaves_nothing_behind(self):
        def gone(look, answer):
            return answer if look < 3 else {**answer, "experiments": []}

        with Served(OCTET, ROUTING) as served, Changing(served.server.http, gone) as stand_in:
            document, messages = opened(f"http://{stand_in.address}/")
        self.assertEqual(messages, [])
        self.assertGreater(stand_in.looks, 3)
        self.assertEqual(document.headings, ["Octet"])
        self.assertEqual(document.seen["charts"], 0, "the library holds them until they are destroyed")

    def test_lines_of_a_precision_that_is_gone_end(self):
        with Served(OCTET, ROUTING) as served:

            def without_int8(look, answer):
                served.ask_all(20)
                (experiment,) = answer["experiments"]
                if look > 2:
                    experiment["precisions"] = [arm for arm in experiment["precisions"] if arm["precision"] != "int8"]
                return answer

            with Changing(served.server.http, without_int8, later=6500) as stand_in:
                document, messages = opened(f"http://{stand_in.address}/", "--virtual-time-budget=7000")
        self.assertEqual(messages, [])
        self.assertEqual(document.seen["lines"], [["fp32 p50", "fp32 p99"], ["fp32"]])

    def test_what_came_while_the_machine_slept_did_not_come_in_a_second(self):
        def busy(look, answer):
            for arm in answer["experiments"][0]["precisions"]:
                arm["histogram_us"]["counts"][5] += 360_000 if look > 3 else 0
            return answer

        # An hour that the steady clock knows nothing of.
        sleeps = "{ const wall = Date.now; Date.now = () => wall.call(Date) + (performance.now() > 2500 ? 3600000 : 0); }"
        with Served(OCTET, ROUTING) as served, Changing(served.server.http, busy, later=3500, first=sleeps) as stand_in:
            document, messages = opened(f"http://{stand_in.address}/")
        self.assertEqual(messages, [])
        self.assertEqual(len(document.seen["rates"]), 2)
        for rate in document.seen["rates"]:
            self.assertAlmostEqual(rate, 100, delta=1)

    def test_of_many_models_those_that_are_seen_are_drawn(self):
        with Served(OCTET, "routing: {default: fp32}\n") as served:

            def twenty(look, answer):
                served.ask_all(10)
                (experiment,) = answer["experiments"]
                return {**answer, "experiments": [{**experiment, "model": f"m{number:02}"} for number in range(20)]}

            for first, last_is_drawn in (("", False), ("setTimeout(() => scrollTo(0, document.body.scrollHeight), 2500);", True)):
                with Changing(served.server.http, twenty, first=first) as stand_in:
                    document, messages = opened(f"http://{stand_in.address}/", "--window-size=1280,600")
                self.assertEqual(messages, [])
                lines = document.seen["lines"]
                self.assertEqual(len(lines), 40)
                self.assertEqual(lines[0], ["fp32 p50", "fp32 p99"])
                self.assertEqual(lines[38], ["fp32 p50", "fp32 p99"] if last_is_drawn else [])
                self.assertIn("m19, version 1", document.headings)
                self.assertGreater(int(rows(document.tables[PRECISIONS])["fp32"]["requests"].replace(",", "")), 20, "the last one's")

    def test_a_server_that_answers_no_more_is_an_alarm(self):
        with Served(OCTET, ROUTING) as served:
            with Changing(served.server.http, lambda look, answer: answer if look < 3 else {}) as stand_in:
                document, _ = opened(f"http://{stand_in.address}/")
            self.assertIn("what is below is old", document.seen["silent"])
            self.assertEqual(document.seen["rows"], 3, "two precisions and a pair are still there")
            hangs = "window.fetch = (path, { signal }) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));"
            with Changing(served.server.http, lambda look, answer: answer, later=11000, first=hangs) as stand_in:
                document, _ = opened(f"http://{stand_in.address}/", "--virtual-time-budget=12000")
            self.assertIn("nothing for 10 seconds", document.seen["silent"])
            with Changing(served.server.http, lambda look, answer: answer) as stand_in:
                document, _ = opened(f"http://{stand_in.address}/")
            self.assertEqual(document.seen["silent"], "")

    def test_what_is_not_known_is_no_number(self):
        def change(version):
            models = version.parents[1]
            shutil.copytree(version, version.parent / "2")
            write_open(models / "open/1/int8.onnx")

        with Served(OCTET, "routing: {versions: {1: 1, 2: 1}}\n", change) as served:
            document, messages = opened(f"http://{served.server.http}/")
            self.assertEqual(messages, [])
            self.assertEqual(document.headings, ["Octet", "glyphs, version 1", "glyphs, version 2", "open, version 1", "glyphs, shared out between its versions"])
            (row,) = rows(document.tables[PRECISIONS]).values()
            self.assertEqual(row["int8 multiply-adds"], "–", "the shapes are open")
            for version in rows(document.tables["Versions of glyphs since their shares were last changed"]).values():
                self.assertEqual((version["requests"], version["mean us"]), ("0", "–"))

    def test_certificates_are_listed_layer_by_layer(self):
        with Served(OCTET, ROUTING) as served, watched(served.server.http) as stand_in:
            address = f"http://{served.server.http}/v2/models/glyphs/versions/1/certificates"
            with urllib.request.urlopen(address, timeout=20) as answer:
                certificates = json.load(answer)["certificates"]
            document, _ = opened(f"http://{stand_in.address}/")
            self.assertEqual([one["precision"] for one in certificates], ["fp32", "int8"])
            for one in certificates:
                _, *layers = document.tables[f"{one['precision']}: {len(one['layers'])} layers"]
                told = [[layer[key] for key in ("name", "op", "requested", "runs", "impl")] for layer in one["layers"]]
                self.assertEqual([cells[:5] for cells in layers], told)

    def test_a_hostile_name_is_a_name(self):
        name = "<img src=x onerror=document.title='owned'>"

        def change(version):
            (version.parent / "model.yaml").unlink()  # has the other name
            version.parent.rename(version.parents[1] / name)

        with Served(OCTET, "", change) as served:
            document, _ = opened(f"http://{served.server.http}/")
            self.assertIn(f"{name}, version 1", document.headings)
            self.assertEqual(document.title, "Octet")

    def test_nothing_comes_from_elsewhere_and_nobody_frames_it(self):
        with Served(OCTET, ROUTING) as served:
            with urllib.request.urlopen(f"http://{served.server.http}/", timeout=10) as answer:
                text = answer.read().decode()
                self.assertIn("default-src 'none'", answer.headers["Content-Security-Policy"])
                self.assertIn("frame-ancestors 'none'", answer.headers["Content-Security-Policy"])
            self.assertEqual(re.findall(r"(?:src|href)=\"([^\"]*)\"", text), ["data:,", "chart.js"])
            with urllib.request.urlopen(f"http://{served.server.http}/chart.js", timeout=10) as answer:
                self.assertIn("javascript", answer.headers["Content-Type"])
                self.assertIn(b"Chart.js v", answer.read())


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
