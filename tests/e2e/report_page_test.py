#!/usr/bin/env python3
"""The page of `octet report` in a browser: its tables, its charts, that it asks nobody for anything, and hostile names.

usage: report_page_test.py OCTET
"""

import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import octet_process
from browser import BROWSER, opened
from octet_process import octet

HOSTILE = "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">&amp;\u2028\"'"

# What the page cannot say itself: what went wrong in it, what was asked of others, what is on its canvases.
WATCH = """<script>
window.seen = {errors: [], refused: []};
addEventListener("error", (event) => seen.errors.push(String(event.message || event.target.outerHTML)), true);
addEventListener("securitypolicyviolation", (event) => seen.refused.push(event.blockedURI));
for (const level of ["error", "warn"]) console[level] = (...words) => seen.errors.push(words.join(" "));
</script>"""
TELL = """<script>
addEventListener("load", () => setTimeout(() => {
  const canvases = [...document.querySelectorAll("canvas")];
  const painted = (canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte);
  seen.canvases = canvases.length;
  seen.charts = canvases.filter((canvas) => Chart.getChart(canvas)).length;
  seen.types = canvases.map((canvas) => Chart.getChart(canvas).config.type);
  seen.painted = canvases.filter(painted).length;
  seen.labelled = canvases.filter((canvas) => canvas.getAttribute("aria-label")).length;
  seen.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  seen.images = document.images.length;
  seen.wider = document.documentElement.scrollWidth - innerWidth;
  const tell = document.body.appendChild(document.createElement("pre"));
  tell.id = "seen";
  tell.textContent = JSON.stringify(seen);
}, 50));
</script>"""


def watched(page, more=""):
    """Returns the address of a copy of the page that says what happens in it."""
    text = page.read_text()
    copy = page.with_suffix(".watched.html")
    copy.write_text(text.replace("<style>", WATCH + "<style>", 1).replace("</body>", more + TELL + "</body>", 1))
    return copy.as_uri()


def write_model(path, name):
    """Two convolutions; every node and value inside has `name` in its own."""
    random = np.random.default_rng(1)
    weights = {f"w{i}{name}": random.normal(size=(4, 3 + i, 3, 3)).astype(np.float32) for i in range(2)}
    nodes = [
        helper.make_node("Conv", ["x", f"w0{name}"], [f"c{name}"], name=f"conv0{name}"),
        helper.make_node("Relu", [f"c{name}"], [f"r{name}"], name=f"relu{name}"),
        helper.make_node("Conv", [f"r{name}", f"w1{name}"], ["d"], name=f"conv1{name}"),
        helper.make_node("GlobalAveragePool", ["d"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8]), helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])]
    graph = helper.make_graph(nodes, "two", ends[:1], ends[1:], [numpy_helper.from_array(array, key) for key, array in weights.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


class PageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if shutil.which(BROWSER) is None:
            raise FileNotFoundError(f"{BROWSER} is not installed: it is one of deploy/toolbox/packages/test")
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.page, cls.report = cls.make("plain", "")
        cls.document, cls.console = opened(watched(cls.page))

    @classmethod
    def make(cls, name, inside):
        models = cls.folder / name
        models.mkdir()
        write_model(models / "fp32.onnx", inside)
        random = np.random.default_rng(2)
        data = cls.folder / f"{name}.npz"
        # Of 40 samples every share has two decimals at most, which Python and JavaScript round alike.
        inputs = random.normal(size=(40, 3, 8, 8)).astype(np.float32)
        np.savez(data, inputs=inputs, labels=random.integers(0, 4, 40))
        made = octet("quantize", models / "fp32.onnx", "--calibration", data, "--out", models, "--json")
        assert made.returncode == 0, made.stderr
        record = cls.folder / f"{name}.record.json"
        record.write_text(made.stdout)
        trained = octet("qat", models / "fp32.onnx", "--data", data, "--epochs", 3, "--out", cls.folder / f"{name}.qat.onnx", "--json")
        assert trained.returncode == 0, trained.stderr
        training = cls.folder / f"{name}.training.json"
        training.write_text(trained.stdout)
        page, text = cls.folder / f"{name}.html", cls.folder / f"{name}.json"
        words = ["--data", data, "--out", page, "--json", text, "--quantize-record", record, "--training-record", training]
        words += ["--rounds", 1, "--seconds", 0.01]
        done = octet("report", models, *words)
        assert done.returncode == 0, done.stderr
        return page, json.loads(text.read_text())

    def test_the_table_has_the_reports_numbers(self):
        head, *rows = self.document.tables["Every file, measured in this run"]
        self.assertEqual([row[0] for row in rows], ["fp32", "fp16", "bf16", "int8", "int8-dynamic"])
        for row, variant in zip(rows, self.report["variants"], strict=True):
            cells = dict(zip(head, row, strict=True))
            self.assertEqual(cells["technique"], variant["technique"])
            self.assertEqual(cells["of fp32"], f"{variant['ratio']:.3f}")
            self.assertEqual(cells["p50"], f"{variant['latency']['p50_ms']:.3f} ms")
            self.assertEqual(cells["p99"], f"{variant['latency']['p99_ms']:.3f} ms")
            self.assertEqual(cells["speed"], f"{variant['latency']['speedup']:.2f}x")
            self.assertEqual(cells["top-1"], f"{variant['accuracy']['top1']:.2f} %")
            self.assertEqual(cells["process"], f"{variant['memory']['peak_resident_bytes'] / 1e6:.2f} MB")
            if variant["name"] != "fp32":
                self.assertEqual(cells["same as fp32"], f"{variant['accuracy']['agreement']:.2f} %")
                self.assertEqual(cells["SQNR"], f"{variant['accuracy']['sqnr_db']:.1f} dB")
            (share,) = variant["mac_share"]
            self.assertEqual(cells["multiply-adds"], f"100.0 % {share}")

    def test_every_claim_has_its_verdict(self):
        _, *rows = self.document.tables["Claims and verdicts"]
        claims = [claim for variant in self.report["variants"] for claim in variant["claims"]]
        self.assertEqual([(row[1], row[3], row[4]) for row in rows], [(c["claim"], c["verdict"], c["reason"]) for c in claims])

    def test_layers_certificates_and_the_record_are_there(self):
        _, *rows = self.document.tables["SQNR of inner values"]
        self.assertEqual([row[0] for row in rows], [row["name"] for row in self.report["variants"][3]["layers"]["values"]])
        for variant in self.report["variants"]:
            table = next(rows for caption, rows in self.document.tables.items() if caption.startswith(f"Certificate of {variant['name']},"))
            self.assertEqual(len(table) - 1, len(variant["certificate"]))
        tried = {row[0] for row in self.document.tables["int8: tried"]}
        self.assertLessEqual({"min-max", "mse", "entropy"}, tried)
        self.assertIn("int8-dynamic: chosen", self.document.tables)

    def test_the_training_curve_has_the_records_numbers(self):
        head, *rows = self.document.tables["Training"]
        record = self.report["training_record"]
        self.assertEqual(head, ["epoch", "loss in training", "held-back loss", "agreement"])
        self.assertEqual(len(rows), 4)
        for row, epoch in zip(rows, record["epochs"], strict=True):
            written = " (written)" if epoch["epoch"] == record["best_epoch"] else ""
            self.assertEqual(row[0], f"{epoch['epoch']}{written}")
            self.assertEqual(row[3], f"{epoch['agreement']:.2f} %")
        self.assertEqual(rows[0][1], "calibrated")

    def test_charts_are_drawn(self):
        seen = self.document.seen
        self.assertEqual(seen["types"][:2], ["scatter", "line"])
        histograms = [
            sum(1 for row in variant["layers"][kind] if kind == "weights" or "quantized" in row)
            for variant in self.report["variants"][1:]
            for kind in ("values", "weights")
        ]
        self.assertEqual(seen["types"][-1], "line")
        self.assertEqual(seen["canvases"], 3 + sum(min(6, count) for count in histograms))
        for what in ("charts", "painted", "labelled"):
            self.assertEqual(seen[what], seen["canvases"], what)

    def test_nothing_goes_wrong_and_nobody_is_asked(self):
        self.assertEqual(self.document.seen["errors"], [])
        self.assertEqual(self.document.seen["refused"], [])
        self.assertEqual(self.document.seen["requests"], [])
        self.assertEqual(self.console, [])
        self.assertEqual(re.findall(r"<(?:link|img|iframe|base|object)\b|<script[^>]+src", self.page.read_text()), [])

    def test_a_request_would_be_seen(self):
        """Of the test itself: the same page, with an image from elsewhere and a mistake in a script."""
        document, console = opened(watched(self.page, "<img src='http://127.0.0.1:9/x.png'><script>mistake()</script>"))
        self.assertEqual(document.seen["refused"], ["http://127.0.0.1:9/x.png"])
        self.assertIn("mistake", " ".join(document.seen["errors"]))
        self.assertTrue(console)

    def test_a_phone_scrolls_tables_and_not_the_page(self):
        document, _ = opened(watched(self.page), "--window-size=360,800")
        self.assertLessEqual(document.seen["wider"], 0)
        self.assertEqual(document.seen["painted"], document.seen["canvases"])

    def test_drawing_anew_for_other_colours_leaves_nothing_behind(self):
        document, _ = opened(watched(self.page, "<script>draw()</script>"), "--blink-settings=preferredColorScheme=0")
        self.assertEqual(document.seen["errors"], [])
        for what in ("canvases", "charts", "painted"):
            self.assertEqual(document.seen[what], self.document.seen["canvases"], what)
        self.assertEqual(document.headings, self.document.headings)

    def test_names_are_text_whatever_they_say(self):
        page, report = self.make("hostile", HOSTILE)
        document, _ = opened(watched(page))
        self.assertTrue(document.title.startswith("Octet report: "), document.title)
        self.assertEqual((document.seen["errors"], document.seen["requests"], document.seen["images"]), ([], [], 0))
        self.assertEqual(document.seen["painted"], document.seen["canvases"])
        names = [row["name"] for row in report["variants"][3]["layers"]["values"]]
        self.assertIn(f"r{HOSTILE}", names)
        self.assertEqual([row[0] for row in document.tables["SQNR of inner values"][1:]], names)
        # The page's own three script elements, and no end of one inside another.
        self.assertEqual(page.read_text().count("</script"), 3)


if __name__ == "__main__":
    octet_process.main()
