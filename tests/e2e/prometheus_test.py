#!/usr/bin/env python3
"""Lets the real Prometheus scrape a server under load, with the configuration of deploy/, and asks it every query of
the dashboard.

usage: prometheus_test.py OCTET
"""

import concurrent.futures
import json
import math
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

import dashboard
import grpc
import numpy
import yaml
from stateful_models import write_sum

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "demo"))
import certificates  # noqa: E402
import client  # noqa: E402
import server  # noqa: E402

MODEL = ROOT / "demo/models/glyphs"
SETTINGS = """
batching: {max_queue_requests: 8}
routing: {split: {fp32: 1, int8: 1}, sticky: {parameter: user}, shadow: {precision: int8, percent: 100}}
capture: {percent: 10}
"""
RAMP = "routing: {guard: {int8: {error_percent: 50}}, ramp: {precision: int8, steps: [50]}}\n"
CLIENTS = 32  # more than the queues hold: some requests are refused
DATA_SECONDS = 60  # from the first scrape to an answer to every query
CERTIFICATE_DAYS = 5  # few enough for a warning


def make_repository(octet, folder):
    version = folder / "models/glyphs/1"
    version.mkdir(parents=True)
    shutil.copy(MODEL / "1/fp32.onnx", version)
    words = ["--calibration", ROOT / "demo/data/calibration.npz", "--map", MODEL / "model.yaml", "--to", "int8", "--out", version]
    subprocess.run([octet, "quantize", version / "fp32.onnx", *words], check=True, stdout=subprocess.DEVNULL, timeout=120)
    (version.parent / "model.yaml").write_text((MODEL / "model.yaml").read_text() + SETTINGS)
    write_sum(folder / "models/sum/1/fp32.onnx")
    shutil.copytree(version, folder / "models/rising/1")
    (folder / "models/rising/model.yaml").write_text((MODEL / "model.yaml").read_text().replace("name: glyphs", "name: rising") + RAMP)
    return folder / "models"


class Load:
    """Requests without end: of the split, of users, of both precisions, and some that nobody can answer."""

    def __init__(self, target, authority):
        """authority: of the server's certificate, in PEM."""
        self.stopped = threading.Event()
        self.codes = set()
        with numpy.load(client.TEST_SET) as data:
            self.image = data["inputs"][0]
        self.reader = client.GlyphReader(target)
        self.reader.stub = type(self.reader.stub)(grpc.secure_channel(target, grpc.ssl_channel_credentials(authority)))
        self.pool = concurrent.futures.ThreadPoolExecutor(CLIENTS)
        self.runs = [self.pool.submit(self._run, number) for number in range(CLIENTS)]

    def _request(self, number):
        kinds = [{}, {"user": f"user-{number}"}, {"precision": "fp32"}, {"precision": "int8"}]
        request = self.reader.request(self.image, **kinds[number % len(kinds)])
        if number % 50 == 0:
            request.model_name = "nobody"
        return request

    def _run(self, number):
        while not self.stopped.is_set():
            try:
                self.reader.stub.ModelInfer(self._request(number), timeout=10)
                self.codes.add("OK")
            except grpc.RpcError as error:
                self.codes.add(error.code().name)
            number += CLIENTS + 1

    def stop(self):
        self.stopped.set()
        for run in self.runs:
            run.result()
        self.pool.shutdown()


class Prometheus:
    """Debian's Prometheus with a copy of deploy/prometheus that scrapes one target every second."""

    def __init__(self, folder, target):
        shutil.copytree(ROOT / "deploy/prometheus", folder)
        configuration = folder / "prometheus.yml"
        configuration.write_text(re.sub(r"interval: \d+s", "interval: 1s", configuration.read_text()))
        (folder / "targets/octet.yaml").write_text(json.dumps([{"targets": [target]}]))
        command = ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={folder}/data", "--web.listen-address=127.0.0.1:0"]
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.address = self._wait_for_address()

    def _wait_for_address(self):
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            said = self.log.read_text()
            listening = re.search(r'msg="Listening on" address=(\S+)', said)
            if listening and "Server is ready" in said:
                return listening[1]
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"prometheus does not start:\n{self.log.read_text()}")

    def ask(self, path, **parameters):
        """Returns the data that an API call answers with."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{url}: {error.read().decode()}") from None

    def values(self, query):
        """Returns the numbers that a query has now, without those that are none."""
        numbers = [float(series["value"][1]) for series in self.ask("query", query=query)["result"]]
        return [value for value in numbers if not math.isnan(value)]

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


class PrometheusTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        repository = make_repository(OCTET, folder)
        captures = folder / "captures"
        captures.mkdir()
        configuration = f"capture: {{path: {captures}, write_seconds: 1}}\n"
        authority = certificates.Authority(folder / "authority")
        tls = certificates.listen(authority.issue("server", days=CERTIFICATE_DAYS))
        cls.server = cls.enterClassContext(server.Server(OCTET, repository, folder, configuration, tls))
        cls.load = Load(cls.server.grpc, authority.certificate.read_bytes())
        cls.addClassCleanup(cls.load.stop)
        cls.prometheus = Prometheus(folder / "prometheus", cls.server.metrics)
        cls.addClassCleanup(cls.prometheus.stop)
        cls.dashboard = dashboard.load()
        every = dict.fromkeys(dashboard.variables(cls.dashboard), ".*")
        cls.values_of = {**every, **dashboard.BUILT_IN}

    def wait_for_data(self, queries):
        """Asks until each query has numbers; fails with those that have none in the end."""
        until, missing = time.monotonic() + DATA_SECONDS, dict(queries)
        while missing and time.monotonic() < until:
            missing = {name: query for name, query in missing.items() if not self.prometheus.values(query)}
            time.sleep(0.5)
        self.assertEqual(missing, {}, f"the clients saw {self.load.codes}")

    def test_every_query_of_the_dashboard_has_data(self):
        queries = {}
        for number, (title, query) in enumerate(dashboard.queries(self.dashboard)):
            queries[f"{number} {title}"] = dashboard.substitute(query, self.values_of)
        self.wait_for_data(queries)

    def test_a_precision_can_be_selected(self):
        chosen = {**self.values_of, "precision": "int8"}
        queries = {
            f"{number} {title}": dashboard.substitute(query, chosen)
            for number, (title, query) in enumerate(dashboard.queries(self.dashboard))
            if "by (precision" in query and "code" not in query
        }
        self.wait_for_data(queries)
        for name, query in queries.items():
            seen = {series["metric"]["precision"] for series in self.prometheus.ask("query", query=query)["result"]}
            self.assertEqual(seen, {"int8"}, name)

    def test_every_variable_offers_its_values(self):
        self.wait_for_data({"up": "octet_variant_ready"})
        expected = {"instance": [self.server.metrics], "model": ["glyphs", "rising", "sum"], "version": ["1"], "precision": ["fp32", "int8"]}
        for name, values in expected.items():
            query = dashboard.variables(self.dashboard)[name]["query"]["query"]
            selector = dashboard.substitute(re.match(r"label_values\((.+), \w+\)$", query)[1], self.values_of)
            offered = self.prometheus.ask(f"label/{name}/values", **{"match[]": selector})
            self.assertEqual(offered, values, name)

    def test_every_recorded_rule_has_data_and_no_rule_fails(self):
        recording = yaml.safe_load((ROOT / "deploy/prometheus/rules/recording.yaml").read_text())
        names = [rule["record"] for group in recording["groups"] for rule in group["rules"]]
        self.wait_for_data({name: name for name in names})
        rules = [rule for group in self.prometheus.ask("rules")["groups"] for rule in group["rules"]]
        self.assertEqual([rule for rule in rules if rule["health"] == "err"], [])

    def test_a_certificate_of_a_few_days_raises_the_warning_alone(self):
        # Which holds for some time before it fires.
        self.wait_for_data({"pending": 'ALERTS{alertname="OctetCertificateExpiresSoon", alertstate="pending"}'})
        (alert,) = [alert for alert in self.prometheus.ask("alerts")["alerts"] if "Certificate" in alert["labels"]["alertname"]]
        self.assertEqual(alert["labels"]["instance"], self.server.metrics)
        self.assertRegex(alert["annotations"]["summary"], rf"^The certificate of {self.server.metrics} has 4d 23h \d+m \d+s left$")

    def test_a_running_server_raises_no_alert_about_itself(self):
        self.wait_for_data({"up": 'up{job="octet"} == 1'})
        about_process = {"OctetDown", "OctetMissing", "OctetRestarted", "OctetVariantNotReady", "OctetModelLoadFailed"}
        # Those of before the first scrape go with the next evaluation; one answer that comes too late makes one for a second, too.
        until = time.monotonic() + 30
        while True:
            alerts = {alert["labels"]["alertname"] for alert in self.prometheus.ask("alerts")["alerts"]} & about_process
            if not alerts or time.monotonic() > until:
                break
            time.sleep(0.2)
        self.assertEqual(alerts, set())

    def test_promtool_accepts_what_the_server_exports(self):
        exported = self.server.metrics_page()
        done = subprocess.run(["promtool", "check", "metrics"], input=exported, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("octet_request_duration_seconds_bucket", exported)


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    unittest.main()
