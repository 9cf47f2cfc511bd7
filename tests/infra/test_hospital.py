"""The node in a container: compose, Kubernetes and the image start a valid command with as few rights as it needs."""

from __future__ import annotations

import json
import re

import kubernetes_validate
import pytest
import yaml

from cxr import __version__
from cxr.cli.main import parse_step
from cxr.steps.node import Node
from support.compose import read_compose_file
from support.kustomize import ROOT, Object, assert_restricted, containers, named, of_kind, pods, production_with

HOSPITAL = ROOT / "infra" / "hospital"
DOCKERFILE = (ROOT / "components" / "Dockerfile").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """What production renders to with the node."""
    return production_with(tmp_path_factory.mktemp("overlay"), "node")


def parse(words: list[str]) -> Node:
    step = parse_step(Node, words)
    assert isinstance(step, Node)
    return step


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_every_object_fits_its_schema(objects: list[Object], version: str) -> None:
    own = [manifest for manifest in objects if manifest["metadata"]["name"] in ("node", "mlflow-node")]
    assert {manifest["kind"] for manifest in own} == {"Service", "StatefulSet", "NetworkPolicy"}
    for manifest in own:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_pod_is_restricted_and_starts_a_valid_command(objects: list[Object]) -> None:
    stateful_set = named(objects, "StatefulSet", "node")
    (pod,) = (pod for pod in pods(objects) if pod.owner == "StatefulSet/node")
    assert_restricted(pod)
    assert not pod.spec["automountServiceAccountToken"]
    (container,) = containers(pod)
    assert container["image"] == f"registry.example.org/cxr/cxr-node:{__version__}"
    assert container["command"][-2:] == ["cxr", "node"]
    node = parse(container["args"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"dicom": node.port, "status": node.status_port}
    assert {port["port"] for port in named(objects, "Service", "node")["spec"]["ports"]} == {node.port}
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {str(path.parent) for path in (node.folder, node.certificate) if path} <= mounts
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "status"}
    assert stateful_set["spec"]["replicas"] == 1
    (destination,) = (policy for policy in of_kind(objects, "NetworkPolicy") if policy["metadata"]["name"] == "node")
    assert destination["spec"]["egress"][1]["ports"][0]["port"] == node.settings().destination.port


def test_the_image_exposes_the_ports_of_the_node() -> None:
    stage = DOCKERFILE[DOCKERFILE.index("FROM node-packages AS node\n") :]
    exposed = re.findall(r"^EXPOSE (\d+) (\d+)$", stage, re.M)
    assert exposed == [(str(Node().port), str(Node().status_port))]
    assert f"127.0.0.1:{Node().status_port}/health" in stage


def test_compose_and_orthanc_agree_on_titles_and_ports() -> None:
    compose = yaml.safe_load((HOSPITAL / "compose.yaml").read_text(encoding="utf-8"))
    orthanc = json.loads((HOSPITAL / "orthanc.json").read_text(encoding="utf-8"))
    node = parse([word.replace("${NAME:-three_block}", "x") for word in compose["services"]["node"]["command"][2:]])
    destination = node.settings().destination
    assert (destination.title, destination.port) == (orthanc["DicomAet"], orthanc["DicomPort"])
    assert destination.host in compose["services"]
    assert orthanc["DicomModalities"] == {"cxr": [node.title, "node", node.port]}
    assert node.callers == [orthanc["DicomAet"]]
    assert "SendToModality(instance, 'cxr')" in (HOSPITAL / "forward.lua").read_text(encoding="utf-8")
    published = [port for service in compose["services"].values() for port in service["ports"]]
    assert all(port.startswith("127.0.0.1:") for port in published)
    volumes = dict(volume.split(":")[:2] for volume in compose["services"]["pacs"]["volumes"])
    assert {volumes["images"]} == {orthanc["StorageDirectory"], orthanc["IndexDirectory"]}, "images outlive it"
    mounted = [volume.split(":")[0] for volume in compose["services"]["pacs"]["volumes"] if volume.startswith("./")]
    assert all((HOSPITAL / name).exists() for name in mounted)


def test_compose_reads_the_file() -> None:
    services = read_compose_file(HOSPITAL / "compose.yaml", MODEL="/somewhere")["services"]
    assert set(services) == {"node", "pacs"}
