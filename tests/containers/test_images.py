"""The images: their user, their output, and which files are in them."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from cxr import __version__

TARGETS = ("data", "train")
"""Images that run steps; test_node.py starts the one of the node."""


def inspect(tag: str, target: str) -> dict:
    result = subprocess.run(
        ["docker", "image", "inspect", f"cxr-{target}:{tag}"], capture_output=True, text=True, check=True
    )
    return json.loads(result.stdout)[0]


@pytest.mark.parametrize("target", TARGETS)
def test_works_as_an_ordinary_user_with_a_read_only_root(in_container, target):
    result = in_container(target, "cxr", "--version")
    assert (result.returncode, result.stdout) == (0, f"cxr {__version__}\n"), result.stderr
    assert "steps, in the order in which data flows" in in_container(target).stdout
    result = in_container(target, "sh", "-c", "id -u; touch /opt/cxr/x; touch /tmp/x && echo written")
    assert result.stdout == "10001\nwritten\n"
    assert "Read-only file system" in result.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_any_user_may_run_it(in_container, target):
    result = in_container(target, "cxr", "fetch", "--help", options=("--user", "4242:4242"))
    assert result.returncode == 0 and "--phantom_images" in result.stdout


@pytest.mark.parametrize("target", [*TARGETS, "node"])
def test_version_commit_and_licence_are_labels(tag, target):
    config = inspect(tag, target)["Config"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert labels["title"] == f"cxr-{target}"
    assert labels["version"] == tag
    assert labels["licenses"] == "Apache-2.0"
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["revision"])
    assert f"CXR_GIT_COMMIT={labels['revision']}" in config["Env"]
    assert config["User"] == "10001"


@pytest.mark.parametrize("target", [*TARGETS, "node"])
def test_no_secret_is_in_the_image(tag, in_container, target):
    history = subprocess.run(
        ["docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", f"cxr-{target}:{tag}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "install.sh packages" in history
    texts = history + json.dumps(inspect(tag, target)["Config"])
    assert not re.search(r"(?i)password|token|api_?key|secret_|://[^/\s]*@|BEGIN ", texts)
    command = "find / -xdev -type f -size +0 \\( -name pip.conf -o -name uv.toml \\) 2>/dev/null"
    assert in_container(target, "sh", "-c", command).stdout == ""
    assert in_container(target, "sh", "-c", "find /run/secrets -type f -size +0 2>/dev/null").stdout == ""
    assert in_container(target, "sh", "-c", "ls /tmp /opt; command -v git uv").stdout == "/opt:\ncxr\n\n/tmp:\n"


def test_data_steps_run_in_the_data_image(in_container, tmp_path: Path):
    tmp_path.chmod(0o777)
    options = ("--volume", f"{tmp_path}:/work", "--workdir", "/work", "--user", "10001:10001")
    for arguments in (
        ["fetch", "--phantom_images", "40", "--phantom_seed", "1"],
        ["validate"],
        ["resplit"],
        ["preprocess", "--prepared", "prepared", "--recipe", "s2_resize", "--size", "48"],
    ):
        result = in_container("data", "cxr", *arguments, options=options)
        assert result.returncode == 0, result.stderr
    owners = {path.stat().st_uid for path in (tmp_path / "prepared").iterdir()}
    assert owners == {10001}


def test_training_in_the_data_image_names_the_training_image(in_container):
    assert "No module named 'tensorflow'" in in_container("data", "python", "-c", "import tensorflow").stderr
    script = (
        "cd /tmp; mkdir manifest splits prepared; cxr train --model any --architecture three_block --tracking_uri '' "
    )
    script += "--manifest manifest --splits splits --prepared prepared --trained trained"
    result = in_container("data", "sh", "-c", script)
    assert result.returncode == 2
    assert "cxr train: expected the training image (cxr-train)" in result.stderr
    assert "received the image CXR_IMAGE=data" in result.stderr


def test_a_component_without_inputs_reports_them(in_container):
    result = in_container("train", "cxr", "evaluate", "--model", "three_block")
    assert result.returncode == 2
    assert re.search(r"cxr evaluate: .*(missing|expected)", result.stderr)


@pytest.mark.parametrize("image", TARGETS)
def test_sigterm_ends_a_step_immediately(tag, image):
    start = ["docker", "run", "--detach", "--read-only", "--tmpfs", "/tmp", f"cxr-{image}:{tag}"]
    arguments = ["cxr", "fetch", "--phantom_images", "100000", "--data", "/tmp/data", "--downloads", "/tmp/d"]
    container = subprocess.run([*start, *arguments], capture_output=True, text=True, check=True).stdout.strip()
    try:
        deadline = time.monotonic() + 60
        probe = ["docker", "exec", container, "sh", "-c", "ls -d /tmp/.data.partial-*"]
        while subprocess.run(probe, capture_output=True).returncode and time.monotonic() < deadline:
            time.sleep(0.2)
        started = time.monotonic()
        subprocess.run(["docker", "stop", "--time", "30", container], capture_output=True, check=True)
        seconds = time.monotonic() - started
        status = subprocess.run(
            ["docker", "inspect", "--format", "{{.State.ExitCode}}", container], capture_output=True, text=True
        ).stdout.strip()
        assert status == "143"  # 137 would mean that it was killed
        assert seconds < 15
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True)
