"""Section ``containers``: all wrong values are reported together, and image references change with the code."""

from __future__ import annotations

import re

import pytest
import yaml

from cxr.errors import ParameterError
from cxr.kubeflow.components import component_images
from cxr.kubeflow.container_settings import ContainerSettings

DIGEST = f"sha256:{'ab' * 32}"


def test_an_image_reference_has_registry_and_version_or_digest():
    settings = ContainerSettings.read(
        {"containers": {"registry": "registry.example.org/cxr/", "version": "1f2e3d", "digests": {"cxr-train": DIGEST}}}
    )
    assert settings.image_reference("cxr-data") == "registry.example.org/cxr/cxr-data:1f2e3d"
    assert settings.image_reference("cxr-train") == f"registry.example.org/cxr/cxr-train@{DIGEST}"
    assert ContainerSettings().image_reference("cxr-data") == "cxr-data:latest"


def test_the_tag_latest_does_not_pin_the_code():
    assert not ContainerSettings().pins_code("cxr-data")
    assert ContainerSettings(version="1f2e3d").pins_code("cxr-data")
    assert ContainerSettings(digests={"cxr-data": DIGEST}).pins_code("cxr-data")
    assert not ContainerSettings(digests={"cxr-data": DIGEST}).pins_code("cxr-train")


def test_all_wrong_values_are_reported_together():
    wrong = {
        "image": "x", "digests": {"cxr-train": "latest"}, "gpu": {"count": -1}, "resources": {"trian": {"cpu": "1"}},
        "checkpoints": {"size": "large"}, "remote": "bucket",
    }  # fmt: skip
    with pytest.raises(ParameterError) as caught:
        ContainerSettings.read({"containers": wrong})
    text = str(caught.value)
    for part in ("containers.image='x'", "containers.digests", "containers.gpu.count", "trian", "checkpoints.size"):
        assert part in text


def test_a_step_without_its_own_resources_gets_the_default_ones():
    settings = ContainerSettings.read({"containers": {"resources": {"default": {"cpu": "3"}, "train": {"cpu": "7"}}}})
    assert settings.resources_of("train").cpu == "7"
    assert settings.resources_of("resplit").cpu == "3"


def test_the_repository_s_own_section_changes_few_defaults(repository):
    section = yaml.safe_load((repository / "params.yaml").read_text())["containers"]
    settings, default = ContainerSettings.read({"containers": section}), ContainerSettings()
    changed = {name for name in ContainerSettings.model_fields if getattr(settings, name) != getattr(default, name)}
    assert changed == {"tracking_uri", "gpu", "resources"}


def test_the_values_of_the_guide_for_a_small_cluster_leave_no_step_out(repository):
    text = (repository / "docs" / "kubeflow.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    (small,) = [block for block in blocks if "resources" in block["containers"]]
    settings = ContainerSettings.read(small)
    for step in component_images():
        resources = settings.resources_of(step)
        cores = float(resources.cpu.removesuffix("m")) / (1000 if resources.cpu.endswith("m") else 1)
        assert cores <= 1 and float(resources.memory.removesuffix("Gi")) <= 3, step
    assert settings.gpu.count == 0 and settings.checkpoints.size is None
