#!/usr/bin/env python3
"""Holds deploy/prometheus and deploy/grafana against promtool and against the metrics that the server has."""

import json
import pathlib
import re
import subprocess
import tempfile
import unittest

import dashboard
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
GRAFANA = ROOT / "deploy/grafana"
# No label and no function is called like this.
METRIC = re.compile(r"\b((?:octet|process)_[a-z0-9_]+)\b")
RECORDED = re.compile(r"\b(?:octet|instance|variant|model):[a-z0-9_]+:[a-z0-9_]+")
# What every target has; discovery may give it others, which must not come between the series of one variant.
OWN_LABELS = {"job", "model", "version", "precision", "against", "code", "reason", "le"}


def promtool(*words):
    command = ["promtool", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def exported_metrics():
    """Returns the names of the metrics that the sources define."""
    source = "".join((ROOT / "server/metrics" / name).read_text() for name in ("metric_list.h", "process_metrics.cc", "collector.cc"))
    return set(re.findall(r'"((?:octet|process)_[a-z0-9_]+)"', source))


def used_metrics(text):
    """Returns the metrics that PromQL names, a histogram by its own name; what rules record is not a metric."""
    names = METRIC.findall(RECORDED.sub("", text))
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


def rules():
    """Returns every rule of deploy/prometheus/rules."""
    documents = [yaml.safe_load(path.read_text()) for path in sorted((PROMETHEUS / "rules").glob("*.yaml"))]
    return [rule for document in documents for group in document["groups"] for rule in group["rules"]]


class PrometheusConfigurationTest(unittest.TestCase):
    def test_promtool_accepts_configuration_and_rules(self):
        done = promtool("check", "config", "--lint-fatal", PROMETHEUS / "prometheus.yml")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("2 rule files found", done.stdout)

    def test_rules_do_what_their_cases_say(self):
        done = promtool("test", "rules", PROMETHEUS / "rules_test.yaml")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_alert_has_a_case_that_raises_it_and_one_that_does_not(self):
        cases = yaml.safe_load((PROMETHEUS / "rules_test.yaml").read_text())["tests"]
        checks = [check for case in cases for check in case.get("alert_rule_test", [])]
        alerts = {rule["alert"] for rule in rules() if "alert" in rule}
        self.assertEqual({check["alertname"] for check in checks if check.get("exp_alerts")}, alerts)
        self.assertEqual({check["alertname"] for check in checks if not check.get("exp_alerts")}, alerts)

    def test_every_recorded_rule_is_used_and_has_a_case(self):
        recorded = {rule["record"] for rule in rules() if "record" in rule}
        used = set(RECORDED.findall(" ".join(rule["expr"] for rule in rules())))
        self.assertEqual(used, recorded)
        cases = yaml.safe_load((PROMETHEUS / "rules_test.yaml").read_text())["tests"]
        tested = {name for case in cases for check in case.get("promql_expr_test", []) for name in RECORDED.findall(check["expr"])}
        self.assertEqual(tested, recorded)

    def test_rules_add_up_over_whatever_labels_targets_have(self):
        for rule in rules():
            self.assertNotRegex(rule["expr"], r"\bwithout\b", rule)
            for labels in re.findall(r"\bby \(([^)]*)\)", rule["expr"]):
                self.assertLessEqual(set(re.split(r",\s*", labels)), OWN_LABELS, rule)

    def test_the_bound_of_the_objective_is_one_of_the_histograms(self):
        # metric_bounds::kLatencySeconds in server/metrics/cells.h.
        bounds = {f"{float(f'{10e-6 * 1.8**step:.3g}'):g}" for step in range(28)}
        expressions = " ".join(rule["expr"] for rule in rules())
        chosen = re.findall(r'octet_request_duration_seconds_bucket\{le="([^"]+)"\}', expressions)
        self.assertEqual(len(chosen), 1, "it is set in one place")
        self.assertLessEqual(set(chosen), bounds)

    def test_rules_name_metrics_that_exist(self):
        used = used_metrics(" ".join(rule["expr"] for rule in rules()))
        self.assertLessEqual(used, exported_metrics())

    def test_alerts_say_how_bad_and_what_to_do(self):
        for rule in rules():
            if "alert" in rule:
                self.assertIn(rule["labels"]["severity"], ("critical", "warning"), rule["alert"])
                self.assertEqual(set(rule["annotations"]), {"summary", "description"}, rule["alert"])

    def test_events_that_alerts_point_to_are_logged(self):
        source = "".join(path.read_text() for path in (ROOT / "server").rglob("*.cc"))
        events = re.findall(r"event=(\w+)", json.dumps(rules()))
        self.assertTrue(events)
        for event in events:
            self.assertIn(f'"{event}"', source)


class KubernetesDiscoveryTest(unittest.TestCase):
    """Pods as Kubernetes' discovery tells of them, through the shipped configuration's relabelling."""

    def discover(self, *pods):
        """Returns promtool's finds for these meta labels in the place of a cluster."""
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            text = (PROMETHEUS / "kubernetes.yaml").read_text()
            (job,) = yaml.safe_load(text)["scrape_configs"]
            self.assertEqual(job.pop("kubernetes_sd_configs"), [{"role": "pod"}])
            targets = [{"targets": [pod.pop("address")], "labels": {f"__meta_kubernetes_pod_{name}": value for name, value in pod.items()}} for pod in pods]
            (folder / "pods.yaml").write_text(yaml.safe_dump(targets))
            job["file_sd_configs"] = [{"files": ["pods.yaml"]}]
            (folder / "kubernetes.yaml").write_text(yaml.safe_dump({"scrape_configs": [job]}))
            (folder / "prometheus.yml").write_text("scrape_config_files: [kubernetes.yaml]\n")
            done = promtool("check", "service-discovery", "--timeout=2s", folder / "prometheus.yml", "octet")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            return [found["labels"] for found in json.loads(done.stdout) if found["labels"]]

    def test_its_pods_get_the_job_that_rules_go_by(self):
        pod = {"address": "10.0.0.1:8002", "label_app": "octet", "container_port_name": "metrics", "name": "octet-1", "node_name": "n1"}
        found = self.discover(pod, {**pod, "address": "10.0.0.1:8001", "container_port_name": "grpc"}, {**pod, "label_app": "other"})
        self.assertEqual(len(found), 1)
        expected = {"job": "octet", "pod": "octet-1", "node": "n1", "instance": "10.0.0.1:8002", "__address__": "10.0.0.1:8002"}
        self.assertEqual({name: found[0].get(name) for name in expected}, expected)

    def test_pods_that_have_ended_are_no_servers_that_are_down(self):
        pod = {"label_app": "octet", "container_port_name": "metrics", "node_name": "n1"}
        phases = ("Pending", "Running", "Failed", "Succeeded")
        found = self.discover(*({**pod, "address": f"10.0.0.{i}:8002", "name": f"octet-{i}", "phase": phase} for i, phase in enumerate(phases)))
        self.assertEqual({labels["pod"] for labels in found}, {"octet-0", "octet-1"})

    def test_the_deployment_has_that_label_and_port(self):
        documents = list(yaml.safe_load_all((ROOT / "deploy/kubernetes/octet.yaml").read_text()))
        template = next(document for document in documents if document["kind"] == "Deployment")["spec"]["template"]
        self.assertEqual(template["metadata"]["labels"]["app"], "octet")
        # Discovery by annotation would scrape it a second time, under another job.
        self.assertNotIn("prometheus.io/scrape", template["metadata"].get("annotations", {}))
        self.assertIn("metrics", [port["name"] for port in template["spec"]["containers"][0]["ports"]])

    def test_prometheus_takes_it_as_it_is(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "prometheus.yml")
            file.write_text(f"scrape_config_files: [{PROMETHEUS}/kubernetes.yaml]\n")
            done = promtool("check", "config", "--lint-fatal", file)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class DashboardTest(unittest.TestCase):
    def setUp(self):
        self.dashboard = dashboard.load()

    def test_it_can_be_provisioned_anywhere(self):
        self.assertEqual(self.dashboard["uid"], "octet-serving")
        self.assertNotIn("id", self.dashboard)
        self.assertNotRegex(dashboard.DASHBOARD.read_text(), r"https?://|localhost|\d+\.\d+\.\d+\.\d+")

    def test_panels_have_ids_of_their_own_and_do_not_overlap(self):
        identities, taken = set(), {}
        for panel in self.dashboard["panels"]:
            self.assertNotIn(panel["id"], identities)
            identities.add(panel["id"])
            at = panel["gridPos"]
            self.assertLessEqual(at["x"] + at["w"], 24, panel["title"])
            for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
                self.assertNotIn(cell, taken, f"{panel['title']} covers {taken.get(cell)}")
                taken[cell] = panel["title"]

    def test_every_query_goes_to_the_chosen_data_source(self):
        source = {"type": "prometheus", "uid": "${datasource}"}
        self.assertEqual(dashboard.variables(self.dashboard)["datasource"]["type"], "datasource")
        for panel in dashboard.panels(self.dashboard):
            self.assertTrue(panel["description"], panel["title"])
            self.assertTrue(panel["targets"], panel["title"])
            for asking in [panel, *panel["targets"]]:
                self.assertEqual(asking["datasource"], source, panel["title"])
            references = [target["refId"] for target in panel["targets"]]
            self.assertEqual(len(set(references)), len(references), panel["title"])

    def test_variables_are_defined_used_and_fed_by_prometheus(self):
        variables = dashboard.variables(self.dashboard)
        self.assertLessEqual({"model", "version", "precision"}, set(variables))
        known = set(variables) | set(dashboard.BUILT_IN)
        used = {name for _, query in dashboard.queries(self.dashboard) for name in re.findall(r"\$\{?(\w+)", query)}
        self.assertLessEqual(used, known)
        self.assertEqual(set(variables) - used, {"datasource"})
        for name, variable in variables.items():
            if name != "datasource":
                self.assertRegex(variable["query"]["query"], rf"^label_values\(.+, {name}\)$")
                self.assertLessEqual(used_metrics(variable["query"]["query"]), exported_metrics())

    def test_every_metric_of_a_variant_can_be_narrowed_to_a_precision(self):
        for title, query in dashboard.queries(self.dashboard):
            if "precision" in query:
                self.assertIn('precision=~"$precision"', query, title)

    def test_it_shows_the_metrics_that_exist_and_all_of_octets_own(self):
        used = used_metrics(" ".join(query for _, query in dashboard.queries(self.dashboard)))
        exported = exported_metrics()
        self.assertLessEqual(used, exported)
        self.assertEqual({name for name in exported if name.startswith("octet_")} - used, set())


class GrafanaProvisioningTest(unittest.TestCase):
    def read(self, name):
        return yaml.safe_load((GRAFANA / "provisioning" / name / "octet.yaml").read_text())

    def test_the_data_source_is_prometheus_at_an_address_from_outside(self):
        (source,) = self.read("datasources")["datasources"]
        self.assertEqual((source["type"], source["url"]), ("prometheus", "${OCTET_PROMETHEUS_URL}"))
        scrape = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]["scrape_interval"]
        self.assertEqual(source["jsonData"]["timeInterval"], scrape)

    def test_the_dashboards_are_files_at_a_place_from_outside(self):
        (provider,) = self.read("dashboards")["providers"]
        self.assertEqual((provider["type"], provider["options"]["path"]), ("file", "${OCTET_DASHBOARDS}"))


if __name__ == "__main__":
    unittest.main()
