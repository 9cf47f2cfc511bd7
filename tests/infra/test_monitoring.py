"""Alert rules and the dashboard are ones that Prometheus and Grafana take, about metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus"
)


def series(registry: CollectorRegistry) -> Iterator[str]:
    """Names of the series that Prometheus reads."""
    for metric in registry.collect():
        yield from (metric.name + suffix for suffix in SUFFIXES[metric.type])


@pytest.fixture(scope="module")
def registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CollectorRegistry, CollectorRegistry]]:
    """Metrics of a service and of a node before their first event."""
    queue = ImageQueue(tmp_path_factory.mktemp("queue"))
    with queue.work():
        yield ServiceMetrics().registry, NodeMetrics(queue).registry


@pytest.fixture(scope="module")
def known(registries: tuple[CollectorRegistry, CollectorRegistry]) -> set[str]:
    return {name for registry in registries for name in series(registry)}


def alert_rules() -> list[dict[str, Any]]:
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))
    return [rule for group in rules["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    return [part["expr"] for part in (*alert_rules(), *targets)]


def test_every_metric_that_is_asked_for_exists_and_all_of_the_node_are_shown(known: set[str]) -> None:
    expected = {name for expression in expressions() for name in re.findall(r"\bcxr_\w+", expression)}
    assert expected - known == set()
    of_node = {name for name in known if name.startswith("cxr_node_") and not name.endswith(("_count", "_sum"))}
    assert of_node - expected == set()


def test_every_alert_says_what_is_wrong_and_how_bad_it_is() -> None:
    alerts = alert_rules()
    assert len({alert["alert"] for alert in alerts}) == len(alerts)
    for alert in alerts:
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert set(alert["annotations"]) == {"summary", "description"}


def test_every_label_that_is_summed_by_exists(registries: tuple[CollectorRegistry, CollectorRegistry]) -> None:
    metrics = [item for registry in registries for item in registry._collector_to_names.items()]
    metric_of = {name: metric for metric, names in metrics for name in names}
    sums = [pair for text in expressions() for pair in re.findall(r"by \(([^)]+)\) \((?:rate\()?(cxr_\w+)", text)]
    assert len(sums) > 10
    for labels, name in sums:  # nothing public tells the labels of a metric without a sample
        assert {*labels.split(", ")} <= {"le", "instance", "job", *metric_of[name]._labelnames}, (labels, name)


def test_alerts_of_the_node_see_the_first_event(registries: tuple[CollectorRegistry, CollectorRegistry]) -> None:
    selector = r'(cxr_node_\w+)\{(\w+)="(\w+)"\}'
    chosen = [match for rule in alert_rules() for match in re.findall(selector, rule["expr"])]
    assert len(chosen) == 2
    for name, label, value in chosen:
        assert registries[1].get_sample_value(name, {label: value}) == 0, "a series has no increase by its first sample"


def alert_cases() -> list[tuple[str | None, dict[str, str]]]:
    """An alert, or None, and the series that make it fire alone: a sample a minute, for two hours."""
    answers, delivered = "cxr_node_answer_seconds_count", 'cxr_node_delivered_total{report="report"}'
    seconds = 'cxr_request_seconds_bucket{path="/v1/predictions",le="%s"}'
    full, rejected = 'cxr_node_received_total{result="queue_full"}', 'cxr_node_associations_total{outcome="rejected"}'
    ok, failed = 'cxr_requests_total{status="200"}', 'cxr_requests_total{status="503"}'
    refused, predicted = 'cxr_refusals_total{kind="not_chest"}', 'cxr_predictions_total{label="NORMAL"}'
    waiting = "cxr_node_waiting_"
    return [
        (None, {"cxr_workers_behind": "0x120", ok: "0+60x120", failed: "0+1x120", refused: "0+1x120"} |
               {predicted: "0+60x120", "cxr_workers_replaced_total": "1x120", 'up{job="cxr-node"}': "1x120"}),
        (None, {f"{waiting}received": "3x120", answers: "0+1x120"}),
        (None, {f"{waiting}outgoing": "3x120", delivered: "0+1x120"}),
        (None, {f"{waiting}dead": "0x120", full: "0x120", rejected: "0+0x120", "cxr_node_behind": "0x120"}),
        ("CxrServiceBehind", {"cxr_workers_behind": "1x120"}),
        ("CxrServiceErrors", {ok: "0+60x120", failed: "0+6x120"}),
        ("CxrServiceSlow", {seconds % "5": "0+10x120", seconds % "10": "0+60x120", seconds % "+Inf": "0+60x120"}),
        ("CxrServiceRestarts", {"cxr_workers_replaced_total": "0+1x120"}),
        ("CxrServiceRefusals", {refused: "0+30x120", predicted: "0+60x120"}),
        ("CxrServiceRefusals", {refused: "0+30x120"}),  # nothing else was ever sent
        ("CxrNodeDown", {'up{job="cxr-node"}': "0x120"}),
        ("CxrNodeDeadLetters", {f"{waiting}dead": "1x120"}),
        ("CxrNodeNotAnswering", {f"{waiting}received": "3x120", answers: "7x120"}),
        ("CxrNodeNotDelivering", {f"{waiting}outgoing": "3x120", delivered: "7x120"}),
        ("CxrNodeNotDelivering", {f"{waiting}outgoing": "3x120"}),
        ("CxrNodeFull", {full: "0x115 1x5"}),
        ("CxrNodeRejectsSenders", {rejected: "0+1x120"}),
        ("CxrNodeBehind", {"cxr_node_behind": "1x120"}),
    ]  # fmt: skip


@needs_promtool
def test_each_alert_fires_for_its_reason_and_none_while_all_is_well(tmp_path: Path) -> None:
    alerts = [rule["alert"] for rule in alert_rules()]
    cases = alert_cases()
    assert {alert for alert, _ in cases} == {None, *alerts}
    tests = [
        {
            "name": f"{alert}: {series}",
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": "2h",
                    "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert else [],
                }
            ],
        }
        for alert, series in cases
    ]
    file = tmp_path / "alerts_test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(MONITORING / "alerts.yaml")], "tests": tests}))
    result = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_prometheus_asks_the_ports_that_service_and_node_have() -> None:
    settings = yaml.safe_load((MONITORING / "prometheus.yaml").read_text(encoding="utf-8"))
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in settings["scrape_configs"]}
    assert targets == {
        "cxr-service": [f"127.0.0.1:{Serve().port}"],
        "cxr-node": [f"127.0.0.1:{Node().status_port}"],
    }
    assert all((MONITORING / name).exists() for name in settings["rule_files"])


@needs_promtool
@pytest.mark.parametrize("command", [("rules", "alerts.yaml"), ("config", "prometheus.yaml")])
def test_promtool_finds_nothing(command: tuple[str, str]) -> None:
    path: Path = MONITORING / command[1]
    result = subprocess.run(["promtool", "check", command[0], path], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
