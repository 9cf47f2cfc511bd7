"""Alert rules and the dashboard are ones that Prometheus and Grafana take, about metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from cxr.pacs.image_queue import ImageQueue
from cxr.pacs.metrics import NodeMetrics
from cxr.serving.rest.metrics import ServiceMetrics
from cxr.steps.node import Node
from cxr.steps.serve import Serve
from support.kustomize import ROOT

MONITORING = ROOT / "infra" / "monitoring"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


def series(registry: CollectorRegistry) -> Iterator[str]:
    """Names of the series that Prometheus reads."""
    for metric in registry.collect():
        yield from (metric.name + suffix for suffix in SUFFIXES[metric.type])


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    queue = ImageQueue(tmp_path_factory.mktemp("queue"))
    with queue.work():
        return {*series(ServiceMetrics().registry), *series(NodeMetrics(queue).registry)}


def expressions() -> list[str]:
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))
    dashboard = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    return alerts + [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_every_metric_that_is_asked_for_exists_and_all_of_the_node_are_shown(known: set[str]) -> None:
    expected = {name for expression in expressions() for name in re.findall(r"\bcxr_\w+", expression)}
    assert expected - known == set()
    of_node = {name for name in known if name.startswith("cxr_node_") and not name.endswith(("_count", "_sum"))}
    assert of_node - expected == set()


def test_every_alert_says_what_is_wrong_and_how_bad_it_is() -> None:
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len({alert["alert"] for alert in alerts}) == len(alerts)
    for alert in alerts:
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert set(alert["annotations"]) == {"summary", "description"}


def test_prometheus_asks_the_ports_that_service_and_node_have() -> None:
    settings = yaml.safe_load((MONITORING / "prometheus.yaml").read_text(encoding="utf-8"))
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in settings["scrape_configs"]}
    assert targets == {
        "cxr-service": [f"127.0.0.1:{Serve().port}"],
        "cxr-node": [f"127.0.0.1:{Node().status_port}"],
    }
    assert all((MONITORING / name).exists() for name in settings["rule_files"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("command", [("rules", "alerts.yaml"), ("config", "prometheus.yaml")])
def test_promtool_finds_nothing(command: tuple[str, str]) -> None:
    path: Path = MONITORING / command[1]
    result = subprocess.run(["promtool", "check", command[0], path], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
