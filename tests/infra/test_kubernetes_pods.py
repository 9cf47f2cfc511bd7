"""Pods run with as little as they can, and find everything that they refer to."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.kustomize import (
    KUBERNETES,
    OVERLAYS,
    ROOT,
    Object,
    Pod,
    assert_restricted,
    containers,
    named,
    of_kind,
    overlay,
    pods,
)

RUNNING = ("local", "production")
STEP_RIGHTS = (
    # verb, resource, name of the object, why (Kubeflow Pipelines: backend/src/v2; Argo: docs/workflow-rbac.md)
    ("create", "argoproj.io/workflowtaskresults", "", "Argo's executor reports how a step ended and what it put out"),
    ("patch", "argoproj.io/workflowtaskresults", "", "the same, from the second report on"),
    ("list", "argoproj.io/workflowtasksets", "", "Argo's agent takes the tasks that need no pod of their own"),
    ("watch", "argoproj.io/workflowtasksets", "", "the same, while it runs"),
    ("patch", "argoproj.io/workflowtasksets/status", "", "Argo's agent reports their results"),
    ("create", "persistentvolumeclaims", "", "driver/k8s.go createPVC: the volume for checkpoints"),
    ("get", "persistentvolumeclaims", "", "driver/k8s.go deletePVC looks whether it is there"),
    ("delete", "persistentvolumeclaims", "", "driver/k8s.go deletePVC"),
    ("get", "pods", "", "driver/k8s.go publishDriverExecution reads the driver's own pod when it reports on a volume"),
    ("list", "pods", "", "Kubeflow's own account for runs has it; no run on a cluster was tried without"),
    ("watch", "pods", "", "the same"),
    ("create", "trainer.kubeflow.org/trainjobs", "", "cxr/train_job/following.py: a training on several nodes"),
    ("get", "trainer.kubeflow.org/trainjobs", "", "the same, until it ends"),
    ("delete", "trainer.kubeflow.org/trainjobs", "", "the same, at its end, or when the task is stopped"),
    ("get", "pods/log", "", "the same, to show its epochs and errors"),
    ("get", "configmaps", "kfp-launcher", "config/env.go FromConfigMap: where outputs are stored"),
    ("get", "secrets", "cxr-s3", "objectstore/object_store.go getS3BucketCredential: the key of that store"),
    ("get", "secrets", "mlpipeline-minio-artifact", "the same, for the store of Kubeflow Pipelines"),
)
"""What the account of a step does, in the pods of driver, launcher and step."""


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
        assert_restricted(pod)


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


@pytest.mark.parametrize("name", OVERLAYS)
def test_steps_have_the_rights_that_kubeflow_and_argo_use_and_no_others(name: str) -> None:
    objects = overlay(name)
    rules = named(objects, "Role", "cxr-pipeline")["rules"]
    granted = [
        (verb, f"{group}/{resource}".lstrip("/"), resource_name)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for resource_name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    ]
    assert sorted(granted) == sorted(right[:3] for right in STEP_RIGHTS)
    binding = named(objects, "RoleBinding", "cxr-pipeline")
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "cxr-pipeline"}
    namespace = "kubeflow" if name == "standalone" else "cxr"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "cxr-pipeline", "namespace": namespace}]
    # The account has no rights from elsewhere.
    assert {item["metadata"]["name"] for kind in ("Role", "ClusterRole") for item in of_kind(objects, kind)} == {
        "cxr-pipeline"
    }


def test_no_step_asks_for_what_only_the_workflow_knows() -> None:
    # For these two placeholders the driver reads the workflow, which the account may not.
    for path in [*(ROOT / "pipelines").rglob("*.py"), *(ROOT / "src" / "cxr").rglob("*.py")]:
        assert not re.search(r"pipeline_job_(create|schedule)_time|PIPELINE_JOB_\w+_TIME", path.read_text()), path


ADDRESSES = re.compile(r"(?:^|[=\s\"'/@])(?:https?://)([a-z0-9][a-z0-9.-]*)")


@pytest.mark.parametrize("name", OVERLAYS)
def test_servers_and_steps_get_names_that_every_namespace_finds(name: str, tmp_path: Path) -> None:
    objects = overlay(name)
    secrets = {} if name == "standalone" else made_secrets(name, tmp_path)
    values = [entry for secret in secrets.values() for entry in secret.values()]
    for item in of_kind(objects, "ConfigMap"):
        values += item["data"].values()
    hosts = {item["data"]["PGHOST"] for item in of_kind(objects, "ConfigMap") if "PGHOST" in item["data"]}
    hosts |= set(re.findall(r"endpoint: ([^:\s]+)", "\n".join(values)))
    for pod in pods(objects):
        for container in containers(pod):
            values += [entry["value"] for entry in container.get("env", ()) if "value" in entry]
            values += container.get("args", ())
    hosts |= {host for value in values for host in ADDRESSES.findall(value)}
    assert hosts >= {"local": {"s3.cxr.svc.cluster.local", "postgres.cxr.svc.cluster.local"}}.get(name, set())
    assert [host for host in hosts if "." not in host] == []
    services = {item["metadata"]["name"] for item in of_kind(objects, "Service")}
    inside = {host.partition(".")[0] for host in hosts if host.endswith(".cxr.svc.cluster.local")}
    assert inside <= services


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
    programs = tmp_path / "programs"
    programs.mkdir()
    for program in (programs / "mlflow", programs / "python"):
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        program.chmod(0o755)
    path = {"PATH": f"{programs}{os.pathsep}/usr/bin:/bin", "TMPDIR": str(tmp_path)}
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
    (container,) = named(objects, "Job", "buckets")["spec"]["template"]["spec"]["containers"]
    command, *names = container["args"]
    assert command == "buckets"
    buckets = {f"s3://{bucket}" for bucket in names}
    settings = next(item for item in of_kind(objects, "ConfigMap") if item["metadata"]["name"].startswith("mlflow-"))
    root = named(objects, "ConfigMap", "kfp-launcher")["data"]["defaultPipelineRoot"]
    assert buckets == {"s3://cxr-dvc", settings["data"]["MLFLOW_ARTIFACTS_DESTINATION"], root.rpartition("/")[0]}


def test_the_buckets_wait_for_the_store_and_not_for_ever() -> None:
    job = named(overlay("local"), "Job", "buckets")["spec"]
    # This limit would also count the time for pulling the image, which does not use up a try.
    assert "activeDeadlineSeconds" not in {**job, **job["template"]["spec"]}
    assert job["backoffLimit"] >= 3
    # A wrong key (status 2) ends the Job at once; Kubernetes asks for `Never` beside this.
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    (container,) = job["template"]["spec"]["containers"]
    fail, ignore = job["podFailurePolicy"]["rules"]
    assert fail == {
        "action": "FailJob",
        "onExitCodes": {"containerName": container["name"], "operator": "In", "values": [2]},
    }
    assert (ignore["action"], ignore["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")


@pytest.mark.parametrize("name", RUNNING)
def test_nobody_stops_the_server_while_it_waits_for_its_database(name: str) -> None:
    deployment = named(overlay(name), "Deployment", "mlflow")["spec"]
    script = (ROOT / "mlflow" / "entrypoint.sh").read_text(encoding="utf-8")
    (wait,) = re.findall(r"WAIT_SECONDS:-(\d+)", script)
    probe = deployment["template"]["spec"]["containers"][0]["startupProbe"]
    start = probe["periodSeconds"] * probe["failureThreshold"]
    assert start >= int(wait) + 300
    assert deployment["progressDeadlineSeconds"] > start


def test_the_champion_asks_for_no_address_that_it_cannot_reach() -> None:
    objects = overlay("production")
    (service,) = [pod for pod in pods(objects) if pod.owner == "InferenceService/champion"]
    variables = {entry["name"]: entry.get("value") for entry in service.spec["containers"][0]["env"]}
    assert variables["MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"] == "false"
