"""What the guides of infra/ name exists."""

from __future__ import annotations

import re

import pytest

from support.kustomize import ROOT, named, overlay

DOCUMENTS = ("infra/README.md", "infra/kubernetes/README.md", "infra/terraform/README.md")
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
MADE = re.compile(r"secrets\.ini$")
KINDS = {
    "deployment": "Deployment",
    "statefulset": "StatefulSet",
    "cronjob": "CronJob",
    "service": "Service",
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist(name: str) -> None:
    folder = (ROOT / name).parent
    elsewhere = "components/README.md"  # the images have a guide of their own
    for link in re.findall(r"\]\(([^)#:]+)\)", TEXTS[name]):
        assert (folder / link).exists() or link.endswith(elsewhere), link
    for path in re.findall(r"(?<![\w/])infra/[\w./-]+", TEXTS[name]):
        assert MADE.search(path) or (ROOT / path).exists(), path


def test_objects_that_commands_name_are_made() -> None:
    text = TEXTS["infra/kubernetes/README.md"]
    words = r"\b(deployment|statefulset|cronjob|service)[/ ]([a-z0-9-]+)\b"
    names = {name for block in commands(text) for name in re.findall(words, block)}
    assert len(names) >= 4
    for kind, name in names:
        assert named(overlay("local"), KINDS[kind], name)
    for secret in re.findall(r"\bsecret ([a-z0-9-]+) [A-Z]", text):
        assert f"[{secret}]" in (ROOT / "infra/kubernetes/overlays/local/secrets.ini.example").read_text()


def test_outputs_and_variables_that_are_named_exist() -> None:
    text = TEXTS["infra/terraform/README.md"]
    files = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "infra" / "terraform").glob("*.tf"))
    outputs = set(re.findall(r"terraform output -raw (\w+)", text))
    assert outputs == {"site_env", "registry"}
    for output in outputs:
        assert f'output "{output}"' in files
    assert 'variable "handover_days"' in files


def commands(text: str) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
