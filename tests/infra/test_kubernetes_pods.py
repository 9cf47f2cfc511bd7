"""Pods run with as little as they can, and find everything that they refer to."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.kustomize import KUBERNETES, ROOT, Object, Pod, containers, named, of_kind, overlay, pods

RUNNING = ("local", "production")


def all_pods(name: str) -> list[Pod]:
    result = pods(overlay(name))
    assert result
    return result


def made_secrets(name: str, folder: Path) -> dict[str, dict[str, str]]:
    """Secrets as the commands of the README make them."""
    file = folder / "secrets.ini"
    example = (KUBERNETES / "overlays" / name / "secrets.ini.example").read_text(encoding="utf-8")
    (folder / "secrets.ini.example").write_text(example, encoding="utf-8")
    subprocess.run([ROOT / "infra" / "new_env.sh", file], check=True)
    answer = subprocess.run([KUBERNETES / "secrets.sh", file], capture_output=True, text=True, check=True)
    return {entry["metadata"]["name"]: entry["stringData"] for entry in yaml.safe_load_all(answer.stdout)}


def environment(container: Object, objects: list[Object], secrets: dict[str, dict[str, str]]) -> dict[str, str]:
    """The variables that Kubernetes would set; a reference to what is not there fails."""
    variables: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        if "secretRef" in source:
            variables |= secrets[source["secretRef"]["name"]]
        else:
            variables |= named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    for entry in container.get("env", ()):
        reference: dict[str, Any] = entry.get("valueFrom", {}).get("secretKeyRef", {})
        variables[entry["name"]] = secrets[reference["name"]][reference["key"]] if reference else entry["value"]
    return variables


@pytest.mark.parametrize("name", RUNNING)
def test_pods_fit_the_standard_that_their_namespace_enforces(name: str) -> None:
    labels = named(overlay(name), "Namespace", "cxr")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in all_pods(name):
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"] is True, pod.owner
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod.spec)
        for volume in pod.spec["volumes"]:
            assert set(volume) - {"name"} <= {"emptyDir", "configMap", "secret", "projected"}
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, f"{pod.owner} {container['name']}"
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert not {"privileged", "runAsUser", "runAsNonRoot", "seccompProfile"} & set(context)


@pytest.mark.parametrize("name", RUNNING)
def test_every_container_says_what_it_needs_and_what_it_may_take(name: str) -> None:
    for pod in all_pods(name):
        volumes = {entry["name"]: entry for entry in pod.spec["volumes"]}
        for volume in volumes.values():
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), f"{pod.owner} {volume['name']}"
        claims = {"data"} if pod.owner.startswith("StatefulSet/") else set()
        for container in containers(pod):
            who = f"{pod.owner} {container['name']}"
            assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"]["requests"]), who
            assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"]["limits"]), who
            assert {entry["name"] for entry in container.get("volumeMounts", ())} <= set(volumes) | claims, who


@pytest.mark.parametrize("name", RUNNING)
def test_what_keeps_running_is_asked_how_it_is(name: str) -> None:
    probes = 0
    for pod in all_pods(name):
        if pod.owner.startswith(("Job/", "CronJob/")):
            continue
        for container in pod.spec["containers"]:
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), pod.owner
            ports = {entry.get("name") for entry in container["ports"]} | {
                o["containerPort"] for o in container["ports"]
            }
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert container[probe].get("httpGet", {}).get("port", next(iter(ports))) in ports
            probes += 1
    assert probes >= 2


@pytest.mark.parametrize("name", RUNNING)
def test_no_server_can_ask_the_cluster_for_anything(name: str) -> None:
    objects = overlay(name)
    for pod in all_pods(name):
        assert pod.spec["automountServiceAccountToken"] is False, pod.owner
        # MLFLOW_PORT would be the address of a service, which the server takes for its port.
        assert pod.spec["enableServiceLinks"] is False, pod.owner
        account = pod.spec.get("serviceAccountName")
        assert account is None or named(objects, "ServiceAccount", account)


def test_steps_may_read_two_secrets_and_report_and_nothing_else() -> None:
    rules = named(overlay("local"), "Role", "cxr-pipeline")["rules"]
    assert "*" not in json.dumps(rules)
    writes = {(kind, verb) for rule in rules for kind in rule["resources"] for verb in rule["verbs"]}
    assert {right for right in writes if right[1] not in ("get", "list", "watch")} == {
        ("workflowtaskresults", "create"),
        ("workflowtaskresults", "patch"),
        ("workflowtasksets/status", "patch"),
    }
    for rule in rules:
        if {"secrets", "configmaps"} & set(rule["resources"]):
            assert rule["resourceNames"]
            assert rule["verbs"] == ["get"]
    for name in ("local", "production", "standalone"):
        binding = named(overlay(name), "RoleBinding", "cxr-pipeline")
        assert binding["subjects"][0]["name"] == "cxr-pipeline"
        assert binding["subjects"][0].get("namespace") == ("kubeflow" if name == "standalone" else "cxr")


@pytest.mark.parametrize("name", RUNNING)
def test_every_secret_that_is_made_is_used_and_the_other_way_round(name: str, tmp_path: Path) -> None:
    objects, secrets = overlay(name), made_secrets(name, tmp_path)
    for pod in pods(objects):
        for container in containers(pod):
            environment(container, objects, secrets)
    text = yaml.safe_dump_all(objects)
    # Steps get cxr-mlflow and cxr-s3 from the compiled pipelines.
    assert {secret for secret in secrets if f"name: {secret}\n" not in text} <= {"cxr-mlflow", "cxr-s3"}
    assert set(secrets["cxr-s3"]) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"}
    assert set(secrets["cxr-mlflow"]) == {
        "MLFLOW_TRACKING_URI",
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
    }


@pytest.mark.parametrize("name", RUNNING)
def test_the_server_takes_the_settings_that_it_is_given(name: str, tmp_path: Path) -> None:
    objects, secrets = overlay(name), made_secrets(name, tmp_path)
    program = tmp_path / "programs" / "mlflow"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    path = {"PATH": f"{program.parent}{os.pathsep}/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    server = next(item for item in pods(objects) if item.owner == "Deployment/mlflow").spec["containers"][0]
    variables_given = environment(server, objects, secrets)
    answer = subprocess.run(
        [ROOT / "mlflow" / "entrypoint.sh"], env=path | variables_given, capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 0, answer.stderr
    address = secrets["cxr-mlflow"]["MLFLOW_TRACKING_URI"].removeprefix("http://")
    allowed = answer.stdout.splitlines()[answer.stdout.splitlines().index("--allowed-hosts") + 1].split(",")
    assert {address, "mlflow:5000"} <= set(allowed)
    upgrade = next(item for item in pods(objects) if item.owner == "CronJob/mlflow-upgrade").spec["containers"][0]
    for variables in (variables_given, environment(upgrade, objects, secrets)):
        assert {key for key in variables if key.startswith("PG")} >= {"PGHOST", "PGDATABASE", "PGUSER", "PGPASSWORD"}


def test_each_key_of_the_store_opens_its_own_buckets(tmp_path: Path) -> None:
    objects, secrets = overlay("local"), made_secrets("local", tmp_path)
    store = next(item for item in pods(objects) if item.owner == "StatefulSet/s3").spec
    init = store["initContainers"][0]
    script = init["args"][0].replace("/identities/", f"{tmp_path}/")
    variables_given = environment(init, objects, secrets)
    subprocess.run([*init["command"], script], env={"PATH": "/usr/bin:/bin"} | variables_given, check=True)
    identities = json.loads((tmp_path / "s3.json").read_text())["identities"]
    rights = {item["name"]: set(item["actions"]) for item in identities}
    assert {name for name, actions in rights.items() if "Admin" in actions} == {"admin"}
    assert {action.partition(":")[2] for action in rights["mlflow"]} == {"cxr-mlflow"}
    assert {action.partition(":")[2] for action in rights["pipeline"]} == {"cxr-dvc", "cxr-kubeflow"}
    assert "Write:cxr-dvc" not in rights["pipeline"]
    for secret, name in (("s3-admin", "admin"), ("mlflow-store", "mlflow"), ("cxr-s3", "pipeline")):
        key = next(item for item in identities if item["name"] == name)["credentials"]
        expected = {
            "accessKey": secrets[secret]["AWS_ACCESS_KEY_ID"],
            "secretKey": secrets[secret]["AWS_SECRET_ACCESS_KEY"],
        }
        assert key == [expected]
    buckets = {
        item["env"][0]["value"] for item in named(objects, "Job", "buckets")["spec"]["template"]["spec"]["containers"]
    }
    settings = next(item for item in of_kind(objects, "ConfigMap") if item["metadata"]["name"].startswith("mlflow-"))
    root = named(objects, "ConfigMap", "kfp-launcher")["data"]["defaultPipelineRoot"]
    assert buckets == {"s3://cxr-dvc", settings["data"]["MLFLOW_ARTIFACTS_DESTINATION"], root.rpartition("/")[0]}
