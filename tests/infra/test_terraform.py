"""Terraform's files: their format, their variables, and what each role may do, worked out by Terraform itself."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.kustomize import ROOT, of_kind, overlay

TERRAFORM = ROOT / "infra" / "terraform"
FILES = {path.name: path.read_text(encoding="utf-8") for path in sorted(TERRAFORM.glob("*.tf"))}
TEXT = "\n".join(FILES.values())
ISSUER = "https://oidc.eks.eu-central-1.amazonaws.com/id/ABC"


def terraform(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed: nothing reads infra/terraform")
    return subprocess.run(["terraform", f"-chdir={folder}", *words], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Outputs of the module of policies, which needs no provider."""
    folder = tmp_path_factory.mktemp("policies")
    for path in (TERRAFORM / "policies").glob("*.tf"):
        shutil.copy(path, folder)
    values = {
        "buckets": {name: f"arn:aws:s3:::hospital-{name}" for name in ("dvc", "mlflow", "kubeflow")},
        "key": "arn:aws:kms:eu-central-1:111122223333:key/k",
        "issuer": ISSUER,
        "provider_arn": "arn:aws:iam::111122223333:oidc-provider/issuer",
        "pipeline_namespaces": ["cxr", "kubeflow"],
    }
    (folder / "terraform.tfvars.json").write_text(json.dumps(values))
    for words in (["init", "-input=false"], ["validate"], ["apply", "-auto-approve", "-input=false"]):
        answer = terraform(folder, *words)
        assert answer.returncode == 0, answer.stderr
    return {name: entry["value"] for name, entry in json.loads(terraform(folder, "output", "-json").stdout).items()}


def test_files_have_terraforms_own_format() -> None:
    answer = terraform(TERRAFORM, "fmt", "-check", "-recursive", "-diff")
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_whole_fits_the_provider_where_one_is_at_hand(tmp_path: Path) -> None:
    folder = shutil.copytree(TERRAFORM, tmp_path / "terraform", ignore=shutil.ignore_patterns(".terraform*"))
    out_of_reach = "the AWS provider cannot be had here: terraform init reaches neither the registry nor a mirror"
    try:
        answer = terraform(folder, "init", "-backend=false", "-input=false")
    except subprocess.TimeoutExpired:
        pytest.skip(out_of_reach)
    if re.search("could not connect|no such host|timeout", answer.stderr):
        pytest.skip(out_of_reach)
    assert answer.returncode == 0, answer.stderr
    answer = terraform(folder, "validate")
    assert answer.returncode == 0, answer.stderr


def test_every_name_that_is_used_is_declared_and_the_other_way_round() -> None:
    resources = set(re.findall(r'^resource "(\w+)" "(\w+)"', TEXT, re.MULTILINE))
    used = set(re.findall(r"(?<!data\.)\b(aws_\w+)\.(\w+)\b", TEXT))
    assert used <= resources
    variables = set(re.findall(r'^variable "(\w+)"', TEXT, re.MULTILINE))
    assert set(re.findall(r"\bvar\.(\w+)", TEXT)) == variables
    inner = (TERRAFORM / "policies" / "variables.tf").read_text(encoding="utf-8")
    handed = re.search(r'module "policies" \{(.*?)\n\}', TEXT, re.DOTALL)
    assert handed is not None
    assert set(re.findall(r"^  (\w+) +=", handed[1], re.MULTILINE)) - {"source"} == set(
        re.findall(r'^variable "(\w+)"', inner, re.MULTILINE)
    )
    for kind in ("variable", "output"):
        for name, body in re.findall(rf'^{kind} "(\w+)" \{{(.*?)^\}}', TEXT + inner, re.MULTILINE | re.DOTALL):
            assert "description = " in body, name


def test_no_bucket_goes_without_any_of_its_guards() -> None:
    guards = ("versioning", "server_side_encryption_configuration", "public_access_block", "policy")
    for guard in (*guards, "ownership_controls", "lifecycle_configuration"):
        body = re.search(rf'^resource "aws_s3_bucket_{guard}" "this" \{{(.*?)^\}}', TEXT, re.MULTILINE | re.DOTALL)
        assert body is not None, guard
        assert re.search(r"for_each += aws_s3_bucket\.this\n", body[1]), guard
    block = FILES["buckets.tf"].partition('"aws_s3_bucket_public_access_block"')[2].partition("\n}")[0]
    assert block.count("= true") == 4
    for words in ("aws:kms", "prevent_destroy = true", "enable_key_rotation     = true", "BucketOwnerEnforced"):
        assert words in FILES["buckets.tf"]
    assert 'image_tag_mutability = "IMMUTABLE"' in FILES["registry.tf"]
    assert "scan_on_push = true" in FILES["registry.tf"]


def test_roles_belong_to_service_accounts_of_the_overlay(policies: dict[str, Any]) -> None:
    accounts = {
        entry["metadata"]["name"]: entry["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
        for entry in of_kind(overlay("production"), "ServiceAccount")
    }
    names = {name: arn.rpartition("-")[2] for name, arn in accounts.items()}
    assert names == {"mlflow": "mlflow", "cxr-pipeline": "pipeline"}
    subjects = {}
    for role, entry in policies["roles"].items():
        (statement,) = json.loads(entry["trust"])["Statement"]
        conditions = statement["Condition"]["StringEquals"]
        assert conditions[f"{ISSUER.removeprefix('https://')}:aud"] == "sts.amazonaws.com"
        subjects[role] = conditions[f"{ISSUER.removeprefix('https://')}:sub"]
    assert subjects == {
        "mlflow": ["system:serviceaccount:cxr:mlflow"],
        "pipeline": ["system:serviceaccount:cxr:cxr-pipeline", "system:serviceaccount:kubeflow:cxr-pipeline"],
    }


def test_roles_open_their_own_buckets_alone(policies: dict[str, Any]) -> None:
    rights: dict[str, set[tuple[str, str]]] = {}
    for role, entry in policies["roles"].items():
        pairs = {
            (action, resource)
            for statement in json.loads(entry["rights"])["Statement"]
            for action in statement["Action"]
            for resource in statement["Resource"]
        }
        assert not any("*" in action or resource == "*" for action, resource in pairs)
        rights[role] = pairs
    put = {role: {resource for action, resource in pairs if action == "s3:PutObject"} for role, pairs in rights.items()}
    got = {role: {resource for action, resource in pairs if action == "s3:GetObject"} for role, pairs in rights.items()}
    bucket = "arn:aws:s3:::hospital-{}/*".format
    assert put == {"mlflow": {bucket("mlflow")}, "pipeline": {bucket("kubeflow")}}
    assert got == {"mlflow": {bucket("mlflow")}, "pipeline": {bucket("dvc"), bucket("kubeflow")}}


def test_nobody_speaks_to_a_bucket_without_tls(policies: dict[str, Any]) -> None:
    assert set(policies["tls_only"]) == {"dvc", "mlflow", "kubeflow"}
    for name, policy in policies["tls_only"].items():
        (statement,) = json.loads(policy)["Statement"]
        assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
        assert statement["Resource"] == [f"arn:aws:s3:::hospital-{name}", f"arn:aws:s3:::hospital-{name}/*"]
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the variables alone, and the values of the example."""
    folder = tmp_path_factory.mktemp("variables")
    shutil.copy(TERRAFORM / "variables.tf", folder)
    shutil.copy(TERRAFORM / "terraform.tfvars.example", folder / "terraform.tfvars")
    assert terraform(folder, "init", "-input=false").returncode == 0
    return folder


def test_the_example_is_a_complete_answer(variables: Path) -> None:
    answer = terraform(variables, "plan", "-input=false", "-no-color")
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("account", "1234"),
        ("region", "Frankfurt"),
        ("prefix", "Hospital"),
        ("prefix", "a" * 60),
        ("cluster_issuer", "http://issuer"),
        ("cluster_issuer", "https://issuer/id/"),
        ("pipeline_namespaces", '["*"]'),
        ("pipeline_namespaces", "[]"),
        ("old_version_days", "0"),
        ("handover_days", "3"),
        ("handover_days", "7.5"),
    ],
)
def test_a_wrong_value_is_refused_in_words(variables: Path, name: str, value: str) -> None:
    answer = terraform(variables, "plan", "-input=false", "-no-color", f"-var={name}={value}")
    assert answer.returncode == 1
    said = " ".join(answer.stderr.replace("│", " ").split())
    assert f"received {name}=" in said
    assert "expected " in said


def test_the_registry_has_a_place_for_every_image() -> None:
    names = set(re.findall(r'"(cxr-[a-z-]+)"', FILES["registry.tf"]))
    assert names == {"cxr-data", "cxr-train", "cxr-train-gpu", "cxr-serve", "cxr-mlflow"}
