"""Every object that an overlay renders to is one that Kubernetes, KServe and Kubeflow Pipelines would take."""

from __future__ import annotations

import copy
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from cxr.cli.main import parse_step
from cxr.steps.serve import Serve
from cxr.train_job.manifest import POD_LABELS
from support.kustomize import (
    KUBERNETES,
    OVERLAYS,
    ROOT,
    Object,
    containers,
    named,
    of_kind,
    overlay,
    pods,
    production_with,
    render,
)

SCHEMA = yaml.safe_load((Path(__file__).parent / "inference_service.schema.yaml").read_text(encoding="utf-8"))
OURS = {"cxr-data", "cxr-train", "cxr-train-gpu", "cxr-serve", "cxr-mlflow"}
OLDEST, NEWEST = "1.29", "1.37"


def mlflow_settings(objects: tuple[Object, ...] | list[Object]) -> Object:
    maps = of_kind(objects, "ConfigMap")
    return next(manifest for manifest in maps if manifest["metadata"]["name"].startswith("mlflow-"))


def check(manifest: Object) -> None:
    if manifest["kind"] == "InferenceService":
        jsonschema.validate(manifest, SCHEMA)
        beside = set(SCHEMA["properties"]["spec"]["properties"]["predictor"]["properties"]) - {"containers"}
        spec = {key: value for key, value in manifest["spec"]["predictor"].items() if key not in beside}
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}, "spec": spec}
    for version in (OLDEST, NEWEST):
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_object_fits_its_schema(name: str) -> None:
    objects = overlay(name)
    assert objects
    for manifest in objects:
        check(manifest)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", ("spec", "replica"), 2),
        ("NetworkPolicy", ("spec", "egres"), []),
        ("InferenceService", ("spec", "predictor", "minReplica"), 2),
        ("InferenceService", ("spec", "predictor", "scaleMetric"), "gpu"),
        ("InferenceService", ("spec", "predictor", "containers", 0, "readinesProbe"), {}),
        ("InferenceService", ("metadata", "annotations", "serving.kserve.io/deploymentMode"), "Raw"),
    ],
)
def test_a_misspelled_field_or_value_is_found(kind: str, path: tuple[str | int, ...], value: Any) -> None:
    manifest = of_kind(overlay("production"), kind)[0]
    check(copy.deepcopy(manifest))
    inner: Any = manifest
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(manifest)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_object_has_a_namespace_and_a_name_of_its_own(name: str) -> None:
    objects = overlay(name)
    namespace = "kubeflow" if name == "standalone" else "cxr"
    assert {manifest["metadata"].get("namespace") for manifest in objects if manifest["kind"] != "Namespace"} == {
        namespace
    }
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in objects]
    assert len(names) == len(set(names))


def test_standalone_brings_nothing_that_would_cut_off_what_runs_there() -> None:
    objects = overlay("standalone")
    assert {manifest["kind"] for manifest in objects} == {"ServiceAccount", "Role", "RoleBinding", "NetworkPolicy"}
    for policy in of_kind(objects, "NetworkPolicy"):
        assert policy["spec"]["podSelector"] in (
            {"matchExpressions": [{"key": "workflows.argoproj.io/workflow", "operator": "Exists"}]},
            {"matchLabels": POD_LABELS},
        )


def test_production_keeps_neither_database_nor_store_in_the_cluster() -> None:
    local, production = overlay("local"), overlay("production")
    assert {manifest["metadata"]["name"] for manifest in of_kind(local, "StatefulSet")} == {"postgres", "s3"}
    text = yaml.safe_dump_all(production)
    assert not re.search(r"seaweedfs|image: postgres|s3:8333|name: buckets|8333", text)
    assert named(production, "Deployment", "mlflow")["spec"]["replicas"] == 2
    assert named(local, "Deployment", "mlflow")["spec"]["replicas"] == 1


def test_our_images_carry_the_version_and_others_are_those_of_the_compose_file() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    compose = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    others = {manifest["image"] for manifest in compose.values() if "build" not in manifest}
    images = set()
    for name in OVERLAYS:
        for pod in pods(overlay(name)):
            for container in containers(pod):
                image, _, tag = container["image"].rpartition(":")
                if image.rpartition("/")[2] in OURS:
                    assert tag == version, container["image"]
                    images.add(image.rpartition("/")[2])
                else:
                    assert container["image"] in others
    assert images == {"cxr-mlflow", "cxr-serve"}


def test_what_a_site_says_reaches_the_objects_and_restarts_the_server(tmp_path: Path) -> None:
    folder = shutil.copytree(KUBERNETES, tmp_path / "kubernetes") / "overlays" / "production"
    lines = (folder / "site.env").read_text(encoding="utf-8").splitlines()
    values = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    mine = {
        "REGISTRY": "111122223333.dkr.ecr.eu-central-1.amazonaws.com",
        "MLFLOW_HOST": "mlflow.hospital.test",
        "DATABASE_HOST": "db.hospital.test",
        "MLFLOW_ARTIFACTS": "s3://hospital-mlflow",
        "PIPELINE_ROOT": "s3://hospital-kubeflow/runs",
        "MLFLOW_ROLE": "arn:aws:iam::999900001111:role/hospital-mlflow",
        "PIPELINE_ROLE": "arn:aws:iam::999900001111:role/hospital-pipeline",
    }
    assert set(values) == set(mine)
    (folder / "site.env").write_text("".join(f"{key}={value}\n" for key, value in mine.items()), encoding="utf-8")
    objects = render(folder)
    text = yaml.safe_dump_all(objects, width=1000)
    assert [value for value in mine.values() if value not in text] == []
    assert "example" not in text
    settings = next(
        manifest for manifest in of_kind(objects, "ConfigMap") if manifest["metadata"]["name"].startswith("mlflow-")
    )
    assert settings["data"]["MLFLOW_SERVER_ALLOWED_HOSTS"].startswith("mlflow.hospital.test,localhost:*,")
    before = next(
        manifest
        for manifest in of_kind(overlay("production"), "ConfigMap")
        if manifest["metadata"]["name"].startswith("mlflow-")
    )
    assert before["metadata"]["name"] != settings["metadata"]["name"]
    references = named(objects, "Deployment", "mlflow")["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    assert {"configMapRef": {"name": settings["metadata"]["name"]}} in references


def serve_step(service: Object) -> Serve:
    """The command of the service, as `cxr serve` reads it."""
    step = parse_step(Serve, service["spec"]["predictor"]["containers"][0]["args"])
    assert isinstance(step, Serve)
    return step


def test_a_shadow_logs_both_answers_to_a_volume_that_its_user_may_write_to(tmp_path: Path) -> None:
    objects = production_with(tmp_path, "shadow")
    for manifest in objects:
        check(manifest)
    service = named(objects, "InferenceService", "champion")
    predictor, step = service["spec"]["predictor"], serve_step(service)
    assert (step.alias, step.shadow) == ("champion", "challenger")
    (mount,) = (entry for entry in predictor["containers"][0]["volumeMounts"] if entry["name"] == "predictions")
    assert mount["mountPath"] == str(step.log_predictions)
    (volume,) = (entry for entry in predictor["volumes"] if entry["name"] == "predictions")
    claim = named(objects, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"] and predictor["maxReplicas"] > 1
    assert predictor["securityContext"]["fsGroup"] == predictor["securityContext"]["runAsUser"]
    plain = named(overlay("production"), "InferenceService", "champion")
    assert serve_step(plain).shadow is None, "without the component nothing changes"


def test_a_canary_gets_a_part_of_the_requests_from_the_revision_with_the_champion(tmp_path: Path) -> None:
    before = named(production_with(tmp_path / "before", "knative"), "InferenceService", "champion")
    objects = production_with(tmp_path / "canary", "knative", "canary")
    for manifest in (*objects, before):
        check(manifest)
    service = named(objects, "InferenceService", "champion")
    for manifest, alias, percent in ((before, "champion", None), (service, "challenger", 10)):
        assert manifest["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Knative"
        assert serve_step(manifest).alias == alias
        assert manifest["spec"]["predictor"].get("canaryTrafficPercent") == percent
    assert serve_step(service).fallback == "champion"
    predictor = service["spec"]["predictor"]
    refused_by_knative = {"securityContext", "terminationGracePeriodSeconds", "restartPolicy", "hostNetwork"}
    assert not refused_by_knative & set(predictor)
    context = predictor["containers"][0]["securityContext"]
    assert context["runAsNonRoot"] is True and context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context["capabilities"] == {"drop": ["ALL"]} and context["allowPrivilegeEscalation"] is False
    policy = named(objects, "NetworkPolicy", "champion-knative")["spec"]["ingress"][0]
    assert {entry["port"] for entry in policy["ports"]} >= {8012, 8112}, "the ports of Knative's proxy"


def test_terraform_writes_lines_that_the_overlay_reads() -> None:
    output = (ROOT / "infra" / "terraform" / "outputs.tf").read_text(encoding="utf-8")
    written = set(re.findall(r"^ +([A-Z_]+)=", output, re.MULTILINE))
    site = (KUBERNETES / "overlays" / "production" / "site.env").read_text(encoding="utf-8")
    read = set(re.findall(r"^([A-Z_]+)=", site, re.MULTILINE))
    assert written == read - {"MLFLOW_HOST", "DATABASE_HOST"}
