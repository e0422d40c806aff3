#!/usr/bin/env python3
"""Holds deploy's Kubernetes manifests, systemd unit and Grafana dashboard against the fields and values that their readers know.

Sources: the API reference of Kubernetes (core/v1, apps/v1, policy/v1); systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.kill(5);
Grafana's JSON model of dashboards (schema version 39). Only what fits this use of them is listed: another field is one line here.
"""

import configparser
import copy
import json
import pathlib
import re
import unittest

import yaml
from known_fields import AnyOf, MapOf, Required, mistakes

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"

# Kubernetes
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
LABELS = MapOf(re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"))
METADATA = {Required("name"): NAME, "labels": LABELS, "annotations": MapOf(str), "namespace": NAME}
SELECTOR = {"matchLabels": LABELS}
COUNT_OR_SHARE = AnyOf(int, re.compile(r"\d+%"))
QUANTITY = AnyOf(int, re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?"))
RESOURCES = MapOf(QUANTITY)
PROBE = {
    "httpGet": {Required("path"): re.compile(r"/.*"), Required("port"): AnyOf(int, PORT_NAME), "scheme": {"HTTP", "HTTPS"}},
    "initialDelaySeconds": int,
    "periodSeconds": int,
    "timeoutSeconds": int,
    "successThreshold": int,
    "failureThreshold": int,
}
CAPABILITIES = {"add": [str], "drop": [str]}
CONTAINER = {
    Required("name"): NAME,
    Required("image"): str,
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "command": [str],
    "args": [str],
    "env": [{Required("name"): str, "value": str}],
    "ports": [{"name": PORT_NAME, Required("containerPort"): int, "protocol": {"TCP", "UDP", "SCTP"}}],
    "startupProbe": PROBE,
    "readinessProbe": PROBE,
    "livenessProbe": PROBE,
    "resources": {"requests": RESOURCES, "limits": RESOURCES},
    "securityContext": {
        "allowPrivilegeEscalation": bool,
        "readOnlyRootFilesystem": bool,
        "privileged": bool,
        "runAsNonRoot": bool,
        "runAsUser": int,
        "capabilities": CAPABILITIES,
    },
    "volumeMounts": [{Required("name"): NAME, Required("mountPath"): re.compile(r"/.*"), "readOnly": bool, "subPath": str}],
}
POD = {
    Required("containers"): [CONTAINER],
    "terminationGracePeriodSeconds": int,
    "nodeSelector": LABELS,
    "securityContext": {
        "runAsNonRoot": bool,
        "runAsUser": int,
        "runAsGroup": int,
        "fsGroup": int,
        "seccompProfile": {Required("type"): {"RuntimeDefault", "Unconfined", "Localhost"}},
    },
    "volumes": [
        {
            Required("name"): NAME,
            "configMap": {Required("name"): NAME},
            "persistentVolumeClaim": {Required("claimName"): NAME, "readOnly": bool},
            "emptyDir": MapOf(str),
        }
    ],
}
KINDS = {
    ("v1", "ConfigMap"): {Required("data"): MapOf(str)},
    ("apps/v1", "Deployment"): {
        Required("spec"): {
            "replicas": int,
            Required("selector"): SELECTOR,
            "strategy": {"type": {"RollingUpdate", "Recreate"}, "rollingUpdate": {"maxSurge": COUNT_OR_SHARE, "maxUnavailable": COUNT_OR_SHARE}},
            Required("template"): {Required("metadata"): {"labels": LABELS, "annotations": MapOf(str)}, Required("spec"): POD},
        }
    },
    ("v1", "Service"): {
        Required("spec"): {
            "clusterIP": AnyOf({"None"}, re.compile(r"[0-9.]+")),
            "type": {"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"},
            "selector": LABELS,
            "publishNotReadyAddresses": bool,
            Required("ports"): [{"name": PORT_NAME, Required("port"): int, "targetPort": AnyOf(int, PORT_NAME), "protocol": {"TCP", "UDP", "SCTP"}}],
        }
    },
    ("policy/v1", "PodDisruptionBudget"): {
        Required("spec"): {"minAvailable": COUNT_OR_SHARE, "maxUnavailable": COUNT_OR_SHARE, Required("selector"): SELECTOR}
    },
}


def manifest_mistakes(document):
    """Returns what is wrong with one document of a manifest."""
    version, kind = document.get("apiVersion"), document.get("kind")
    if (version, kind) not in KINDS:
        return [f"expected one of {sorted(KINDS)}, got {version} {kind}"]
    shape = {Required("apiVersion"): {version}, Required("kind"): {kind}, Required("metadata"): METADATA, **KINDS[version, kind]}
    return list(mistakes(document, shape, kind))


class KubernetesFieldsTest(unittest.TestCase):
    def setUp(self):
        self.documents = list(yaml.safe_load_all((DEPLOY / "kubernetes/octet.yaml").read_text()))

    def test_every_field_is_one_of_the_api(self):
        self.assertEqual(len(self.documents), len(KINDS))
        for document in self.documents:
            self.assertEqual(manifest_mistakes(document), [])

    def test_a_limit_is_no_less_than_what_is_asked_for(self):
        (deployment,) = [document for document in self.documents if document["kind"] == "Deployment"]
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            self.assertEqual(container["resources"]["limits"], container["resources"]["requests"], "guaranteed: whole cores of its own")

    def test_what_the_api_would_refuse_is_found(self):
        (deployment,) = [document for document in self.documents if document["kind"] == "Deployment"]
        changes = {
            "no such field": lambda pod: pod.update(terminationGraceSeconds=pod.pop("terminationGracePeriodSeconds")),
            "expected int": lambda pod: pod.update(terminationGracePeriodSeconds="50"),
            "missing": lambda pod: pod["containers"][0].pop("image"),
            "expected one of": lambda pod: pod["containers"][0].update(imagePullPolicy="Missing"),
            "expected a list": lambda pod: pod["containers"][0].update(args="serve"),
            "expected a mapping": lambda pod: pod.update(nodeSelector=["amd64"]),
        }
        for text, change in changes.items():
            changed = copy.deepcopy(deployment)
            change(changed["spec"]["template"]["spec"])
            (mistake,) = manifest_mistakes(changed)
            self.assertIn(text, mistake)
            self.assertIn("Deployment.spec.template.spec.", mistake)
        self.assertIn("got apps/v1beta1 Deployment", manifest_mistakes({**deployment, "apiVersion": "apps/v1beta1"})[0])


# systemd
TRUTH = {"yes", "no", "true", "false", "on", "off", "1", "0"}
SECONDS = re.compile(r"\d+(s|sec|min|ms)?|infinity")
NUMBER = re.compile(r"\d+|infinity")
MODE = re.compile(r"0[0-7]{3}")
UNITS = re.compile(r"[\w@.-]+\.(service|target|socket|mount)( [\w@.-]+\.(service|target|socket|mount))*")
COMMAND = re.compile(r"[-@:+!]*/\S+( .*)?")
PATHS = re.compile(r"[\w.-]+(/[\w.-]+)*( [\w.-]+(/[\w.-]+)*)*")  # Below /var/lib.
UNIT = {
    Required("Unit"): {"Description": str, "Documentation": re.compile(r"(https?://|file:/|info:|man:)\S+"), "After": UNITS, "Wants": UNITS, "Requires": UNITS},
    Required("Service"): {
        "Type": {"simple", "exec", "forking", "oneshot", "dbus", "notify", "notify-reload", "idle"},
        Required("ExecStart"): COMMAND,
        "ExecReload": COMMAND,
        "KillSignal": re.compile(r"SIG[A-Z0-9]+"),
        "TimeoutStopSec": SECONDS,
        "TimeoutStartSec": SECONDS,
        "Restart": {"no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always"},
        "RestartSec": SECONDS,
        "LimitNOFILE": NUMBER,
        "DynamicUser": TRUTH,
        "StateDirectory": PATHS,
        "StateDirectoryMode": MODE,
        "ProtectSystem": TRUTH | {"full", "strict"},
        "ProtectHome": TRUTH | {"read-only", "tmpfs"},
        "PrivateTmp": TRUTH,
        "PrivateDevices": TRUTH,
        "NoNewPrivileges": TRUTH,
        "CapabilityBoundingSet": re.compile(r"(~?CAP_[A-Z_]+( CAP_[A-Z_]+)*)?"),
        "ProtectKernelTunables": TRUTH,
        "ProtectKernelModules": TRUTH,
        "ProtectKernelLogs": TRUTH,
        "ProtectControlGroups": TRUTH,
        "ProtectClock": TRUTH,
        "ProtectHostname": TRUTH,
        "LockPersonality": TRUTH,
        "RestrictNamespaces": TRUTH,
        "RestrictRealtime": TRUTH,
        "RestrictSUIDSGID": TRUTH,
        "RestrictAddressFamilies": re.compile(r"~?AF_[A-Z0-9]+( AF_[A-Z0-9]+)*"),
        "SystemCallArchitectures": {"native", "x86-64"},
        "UMask": MODE,
    },
    Required("Install"): {"WantedBy": UNITS},
}


def read_unit(text):
    """Returns the sections of a unit. Fails where a key is repeated."""
    unit = configparser.ConfigParser(strict=True, interpolation=None, delimiters=("=",), comment_prefixes=("#", ";"))
    unit.optionxform = str
    unit.read_string(text)
    return {section: dict(unit[section]) for section in unit.sections()}


class SystemdFieldsTest(unittest.TestCase):
    def setUp(self):
        self.text = (DEPLOY / "systemd/octet.service").read_text()

    def test_every_directive_is_one_that_systemd_knows_in_its_section(self):
        self.assertEqual(list(mistakes(read_unit(self.text), UNIT)), [])

    def test_comments_have_lines_of_their_own(self):
        # Behind a value they would be part of it.
        for line in self.text.splitlines():
            if not line.startswith("#"):
                self.assertNotIn(" #", line)

    def test_what_systemd_would_pass_over_is_found(self):
        for before, after, text in (
            ("ProtectHome=yes", "ProtectHomes=yes", "no such field"),
            ("ProtectSystem=strict", "ProtectSystem=strictly", "expected one of"),
            ("TimeoutStopSec=45", "TimeoutStopSec=45 seconds or so", "expected "),
            ("[Install]\nWantedBy=", "[Install]\nRestart=always\nWantedBy=", "no such field"),
            ("ExecStart=/usr/bin/octet", "ExecStart=octet", "expected "),
        ):
            self.assertIn(before, self.text)
            (mistake,) = mistakes(read_unit(self.text.replace(before, after)), UNIT)
            self.assertIn(text, mistake)


# Grafana
SOURCE = {Required("type"): {"prometheus"}, Required("uid"): str}
REAL = AnyOf(int, float)
UNIT_IDS = {"short", "none", "percent", "percentunit", "dB", "bytes", "decbytes", "s", "ms", "reqps", "rowsps", "ops", "cps"}
CALCULATIONS = {"lastNotNull", "last", "first", "min", "max", "mean", "sum", "count", "range", "delta"}
COLOURS = {"blue", "green", "orange", "purple", "red", "yellow"}
OVERRIDE_VALUES = {"unit": UNIT_IDS, "color": {Required("mode"): {"fixed", "shades"}, "fixedColor": COLOURS}}
OVERRIDE = {
    Required("matcher"): {Required("id"): {"byName", "byRegexp", "byType", "byFrameRefID"}, Required("options"): str},
    Required("properties"): [AnyOf(*({Required("id"): {name}, Required("value"): shape} for name, shape in OVERRIDE_VALUES.items()))],
}
THRESHOLDS = {Required("mode"): {"absolute", "percentage"}, Required("steps"): [{Required("color"): COLOURS, Required("value"): AnyOf(REAL, type(None))}]}
SCALE = {Required("type"): {"linear", "log", "symlog"}, "log": {2, 10}}
LINES = {
    "drawStyle": {"line", "bars", "points"},
    "fillOpacity": int,
    "lineWidth": int,
    "showPoints": {"auto", "never", "always"},
    "spanNulls": AnyOf(bool, int),
    "stacking": {Required("mode"): {"none", "normal", "percent"}, "group": str},
    "scaleDistribution": SCALE,
}
LEGEND = {Required("displayMode"): {"list", "table", "hidden"}, Required("placement"): {"bottom", "right"}, "calcs": [CALCULATIONS], "showLegend": bool}
OPTIONS = {
    "timeseries": {"legend": LEGEND, "tooltip": {Required("mode"): {"single", "multi", "none"}, "sort": {"none", "asc", "desc"}}},
    "stat": {
        "reduceOptions": {Required("calcs"): [CALCULATIONS], "fields": str, "values": bool},
        "colorMode": {"none", "value", "background", "background_solid"},
        "graphMode": {"none", "area"},
        "textMode": {"auto", "value", "value_and_name", "name", "none"},
    },
    "table": {"showHeader": bool, "sortBy": [{Required("displayName"): str, "desc": bool}]},
    "heatmap": {
        "calculate": bool,
        "cellGap": int,
        "color": {
            "mode": {"scheme", "opacity"},
            "scheme": {"Oranges", "Blues", "Greens", "Greys", "Purples", "Reds", "Spectral", "Turbo", "Viridis"},
            "scale": {"linear", "exponential"},
            "exponent": REAL,
            "fill": str,
            "steps": int,
            "reverse": bool,
        },
        "filterValues": {"le": REAL},
        "legend": {"show": bool},
        "rowsFrame": {"layout": {"auto", "le", "ge", "unknown"}},
        "tooltip": {"mode": {"single", "multi", "none"}, "yHistogram": bool, "showColorScale": bool},
        "yAxis": {"unit": UNIT_IDS, "axisPlacement": {"auto", "left", "right", "hidden"}},
    },
}
CUSTOM = {"timeseries": LINES, "heatmap": {"scaleDistribution": SCALE}, "stat": {}, "table": {}}
TARGET = {
    Required("refId"): re.compile("[A-Z]"),
    Required("datasource"): SOURCE,
    Required("expr"): str,
    "legendFormat": str,
    "format": {"time_series", "table", "heatmap"},
    "instant": bool,
    "range": bool,
}
ORGANIZE = {"excludeByName": MapOf(bool), "indexByName": MapOf(int), "renameByName": MapOf(str)}
TRANSFORMATION = AnyOf({Required("id"): {"merge"}, Required("options"): {}}, {Required("id"): {"organize"}, Required("options"): ORGANIZE})
PLACE = {Required("x"): int, Required("y"): int, Required("w"): int, Required("h"): int}


def panel_mistakes(panel):
    """Returns what is wrong with a panel, or a row of them."""
    kind = panel.get("type")
    heading = {Required("type"): {kind}, Required("id"): int, Required("title"): str, Required("gridPos"): PLACE}
    if kind == "row":
        found = list(mistakes({**panel, "panels": []}, {**heading, "collapsed": bool, "panels": [dict]}, panel["title"]))
        return found + [mistake for inner in panel.get("panels", []) for mistake in panel_mistakes(inner)]
    if kind not in OPTIONS:
        return [f"{panel.get('title')}: expected one of {sorted(OPTIONS)}, got {kind}"]
    defaults = {Required("unit"): UNIT_IDS, "min": REAL, "max": REAL, "decimals": int, "thresholds": THRESHOLDS, "custom": CUSTOM[kind]}
    shape = {
        **heading,
        Required("description"): str,
        Required("datasource"): SOURCE,
        Required("fieldConfig"): {Required("defaults"): defaults, Required("overrides"): [OVERRIDE]},
        Required("options"): OPTIONS[kind],
        Required("targets"): [TARGET],
        "transformations": [TRANSFORMATION],
    }
    return list(mistakes(panel, shape, panel["title"]))


class GrafanaFieldsTest(unittest.TestCase):
    def setUp(self):
        self.panels = json.loads((DEPLOY / "grafana/dashboards/octet.json").read_text())["panels"]

    def test_every_field_of_a_panel_is_one_that_its_kind_reads(self):
        for panel in self.panels:
            self.assertEqual(panel_mistakes(panel), [])

    def test_what_grafana_would_pass_over_is_found(self):
        graph = next(panel for panel in self.panels if panel["type"] == "timeseries")
        changes = {
            "no such field": lambda panel: panel["options"]["legend"].update(position="bottom"),
            "expected one of": lambda panel: panel["fieldConfig"]["defaults"].update(unit="seconds"),
            "missing": lambda panel: panel["targets"][0].pop("expr"),
            "expected int": lambda panel: panel["gridPos"].update(w="12"),
        }
        for text, change in changes.items():
            changed = copy.deepcopy(graph)
            change(changed)
            (mistake,) = panel_mistakes(changed)
            self.assertIn(text, mistake)


if __name__ == "__main__":
    unittest.main()
