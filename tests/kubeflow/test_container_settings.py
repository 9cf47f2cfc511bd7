"""Section ``containers``: what is wrong is told at once, and images are named so that caching can be trusted."""

from __future__ import annotations

import pytest
import yaml

from cxr.errors import ParameterError
from cxr.kubeflow.container_settings import Containers

DIGEST = f"sha256:{'ab' * 32}"


def test_an_image_is_named_by_registry_and_version_or_digest():
    settings = Containers.read(
        {"containers": {"registry": "registry.example.org/cxr/", "version": "1f2e3d", "digests": {"cxr-train": DIGEST}}}
    )
    assert settings.image("cxr-data") == "registry.example.org/cxr/cxr-data:1f2e3d"
    assert settings.image("cxr-train") == f"registry.example.org/cxr/cxr-train@{DIGEST}"
    assert Containers().image("cxr-data") == "cxr-data:latest"


def test_the_tag_latest_does_not_name_the_code():
    assert not Containers().names_code("cxr-data")
    assert Containers(version="1f2e3d").names_code("cxr-data")
    assert Containers(digests={"cxr-data": DIGEST}).names_code("cxr-data")
    assert not Containers(digests={"cxr-data": DIGEST}).names_code("cxr-train")


def test_all_wrong_values_are_told_at_once():
    wrong = {
        "image": "x", "digests": {"cxr-train": "latest"}, "gpu": {"count": -1}, "resources": {"trian": {"cpu": "1"}},
        "checkpoints": {"size": "large"}, "remote": "bucket",
    }  # fmt: skip
    with pytest.raises(ParameterError) as refused:
        Containers.read({"containers": wrong})
    text = str(refused.value)
    for part in ("containers.image='x'", "containers.digests", "containers.gpu.count", "trian", "checkpoints.size"):
        assert part in text


def test_a_step_without_resources_of_its_own_gets_the_default_ones():
    settings = Containers.read({"containers": {"resources": {"default": {"cpu": "3"}, "train": {"cpu": "7"}}}})
    assert settings.of("train").cpu == "7"
    assert settings.of("resplit").cpu == "3"


def test_the_repository_s_own_section_is_the_default_but_for_addresses(repository):
    section = yaml.safe_load((repository / "params.yaml").read_text())["containers"]
    here, default = Containers.read({"containers": section}), Containers()
    differ = {name for name in Containers.model_fields if getattr(here, name) != getattr(default, name)}
    assert differ == {"tracking_uri", "gpu", "resources"}
