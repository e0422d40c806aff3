"""Reads deploy/grafana's dashboard the way Grafana does, as far as its queries go."""

import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy/grafana/dashboards/octet.json"
# What Grafana itself puts into queries, and what stands for it in a test.
BUILT_IN = {"__rate_interval": "15s"}


def load():
    return json.loads(DASHBOARD.read_text())


def panels(dashboard):
    """Returns every panel that is not just a heading, those of folded rows included."""
    nested = [inner for panel in dashboard["panels"] for inner in panel.get("panels", [])]
    return [panel for panel in dashboard["panels"] + nested if panel["type"] != "row"]


def queries(dashboard):
    """Yields (panel's title, PromQL) of every target, variables still in it."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def variables(dashboard):
    """Returns the dashboard's variables by name."""
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}


def substitute(text, values):
    """Replaces $name and ${name}. KeyError for a variable that nobody defines."""
    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda found: values[found[1] or found[2]], text)
