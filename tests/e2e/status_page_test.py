#!/usr/bin/env python3
"""The page at the HTTP port in a browser, while somebody is answered: its numbers are those of the metrics.

usage: status_page_test.py OCTET
"""

import copy
import http.server
import json
import re
import sys
import threading
import time
import unittest
import urllib.request

import served_glyphs
from browser import opened
from served_glyphs import Served

OCTET = ""
REQUESTS = 120
ROUTING = """routing:
  split: {fp32: 1, int8: 1}
  shadow: {precision: int8, against: fp32, percent: 100}
  guard: {int8: {error_percent: 50}}
"""
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
  });
}, 4500);
</script>"""


class Watched(http.server.ThreadingHTTPServer):
    """Gives what the server gives, its page with TELL in it; calls `before_look` each time that the page asks for its numbers."""

    def __init__(self, server, before_look=lambda: None):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):  # noqa: N802
                if self.path == "/v2/experiments":
                    before_look()
                with urllib.request.urlopen(f"http://{server}{self.path}", timeout=20) as answer:
                    body, kind = answer.read(), answer.headers["Content-Type"]
                if self.path == "/":
                    body = body.replace(b"</body>", TELL.encode() + b"</body>")
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server_port}/"

    def __exit__(self, *error):
        self.shutdown()
        super().__exit__(*error)


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
                self.assertEqual(row["errors"], "0")
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
            self.assertRegex(precisions["int8"]["guard"], r"^\d+ kept, 0 broken$")
            (pair,) = rows(document.tables[SHADOW]).values()
            self.assertEqual(pair["compared"], str(answered))
            print(precisions, pair)

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

            with Watched(served.server.http, ask_and_scrape) as watched:
                document, messages = opened(watched.address, "--window-size=360,800")
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

    def test_certificates_are_listed_layer_by_layer(self):
        with Served(OCTET, ROUTING) as served, Watched(served.server.http) as watched:
            address = f"http://{served.server.http}/v2/models/glyphs/versions/1/certificates"
            with urllib.request.urlopen(address, timeout=20) as answer:
                certificates = json.load(answer)["certificates"]
            document, _ = opened(watched.address)
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
