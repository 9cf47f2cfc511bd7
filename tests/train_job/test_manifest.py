"""The TrainJob fits the schema of the Trainer, and the Pod Security level of the namespace."""

from __future__ import annotations

import copy
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest

from cxr.train_job.manifest import TrainingNodes, train_job
from support.kubernetes_server import SCHEMA

NODES = TrainingNodes(
    count=4,
    image="registry.example.org/cxr/cxr-train-gpu:1f2e3d",
    claim="training",
    runtime="jax-distributed",
    resources={"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": 2},
    hours=1.5,
    user=10001,
    node_selector={"gpu": "yes"},
    tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    shared_memory="1Gi",
    secrets={"cxr-mlflow": ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")},
    image_pull_secret="registry",
)
JOB = train_job("shallow-1", NODES, ["train", "--model", "shallow"], {"KERAS_BACKEND": "jax"}, Path("/checkpoints"))


def pod_of(job):
    (patch,) = job["spec"]["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert node["name"] == "node"
    return node["template"]["spec"]["template"]


def test_the_job_fits_the_schema_with_and_without_what_may_be_left_out():
    required = {field for field, info in TrainingNodes.model_fields.items() if info.is_required()}
    plain = train_job("a", TrainingNodes(**NODES.model_dump(include=required)), ["train"], {}, Path("/checkpoints"))
    for job in (JOB, plain):
        jsonschema.validate(job, SCHEMA)
    assert [volume["name"] for volume in pod_of(plain)["spec"]["volumes"]] == ["shared"]


@pytest.mark.parametrize(
    "path", [("spec",), ("spec", "trainer"), ("spec", "runtimePatches", 0), ("spec", "runtimeRef")]
)
def test_a_field_that_the_trainer_does_not_know_is_found(path):
    job = copy.deepcopy(JOB)
    inner = job
    for key in path:
        inner = inner[key]
    inner["podTemplateOverrides"] = []  # the field of the Trainer before 2.2
    with pytest.raises(jsonschema.ValidationError, match="podTemplateOverrides"):
        jsonschema.validate(job, SCHEMA)


def test_the_pods_are_valid_and_as_restricted_as_their_namespace():
    patch, trainer = pod_of(JOB), JOB["spec"]["trainer"]
    (container,) = patch["spec"]["containers"]
    own = {key: trainer[key] for key in ("image", "command", "args", "env")}
    resources = trainer["resourcesPerNode"]
    spec = patch["spec"] | {"containers": [{**container, **own, "resources": resources}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "node", **patch["metadata"]}, "spec": spec}
    kubernetes_validate.validate(pod, "1.34", strict=True)
    # https://kubernetes.io/docs/concepts/security/pod-security-standards/, level restricted
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_each_node_gets_the_command_the_resources_and_the_volume():
    trainer = JOB["spec"]["trainer"]
    assert trainer["numNodes"] == 4
    assert [*trainer["command"], *trainer["args"]] == ["cxr", "train", "--model", "shallow"]
    assert trainer["resourcesPerNode"]["limits"] == {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": 2}
    assert JOB["spec"]["activeDeadlineSeconds"] == 5400
    spec = pod_of(JOB)["spec"]
    claims = {volume["name"]: volume["persistentVolumeClaim"] for volume in spec["volumes"] if "emptyDir" not in volume}
    assert claims == {"shared": {"claimName": "training"}}
    mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
    assert mounts == {"shared": "/checkpoints", "memory": "/dev/shm"}
    secrets = {entry["name"] for entry in trainer["env"] if "valueFrom" in entry}
    assert secrets == {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}
