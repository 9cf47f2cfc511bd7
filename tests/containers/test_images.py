"""The images themselves: who they run as, what they say, what is in them and what is not."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from cxr import __version__

TARGETS = ("data", "train")


def inspect(tag: str, target: str) -> dict:
    answer = subprocess.run(
        ["docker", "image", "inspect", f"cxr-{target}:{tag}"], capture_output=True, text=True, check=True
    )
    return json.loads(answer.stdout)[0]


@pytest.mark.parametrize("target", TARGETS)
def test_answers_as_nobody_special_with_a_read_only_root(in_container, target):
    answer = in_container(target, "cxr", "--version")
    assert (answer.returncode, answer.stdout) == (0, f"cxr {__version__}\n"), answer.stderr
    assert "steps, in the order in which data flows" in in_container(target).stdout
    answer = in_container(target, "sh", "-c", "id -u; touch /opt/cxr/x; touch /tmp/x && echo written")
    assert answer.stdout == "10001\nwritten\n"
    assert "Read-only file system" in answer.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_any_user_may_run_it(in_container, target):
    answer = in_container(target, "cxr", "fetch", "--help", options=("--user", "4242:4242"))
    assert answer.returncode == 0 and "--phantom_images" in answer.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_version_commit_and_licence_are_labels(tag, target):
    found = inspect(tag, target)["Config"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in found["Labels"].items()}
    assert labels["title"] == f"cxr-{target}"
    assert labels["version"] == tag
    assert labels["licenses"] == "Apache-2.0"
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["revision"])
    assert f"CXR_GIT_COMMIT={labels['revision']}" in found["Env"]
    assert found["User"] == "10001"


@pytest.mark.parametrize("target", TARGETS)
def test_no_secret_is_left_in_it(tag, in_container, target):
    history = subprocess.run(
        ["docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", f"cxr-{target}:{tag}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "install.sh packages" in history
    words = history + json.dumps(inspect(tag, target)["Config"])
    assert not re.search(r"(?i)password|token|api_?key|secret_|://[^/\s]*@|BEGIN ", words)
    left = "find / -xdev -type f -size +0 \\( -name pip.conf -o -name uv.toml \\) 2>/dev/null"
    assert in_container(target, "sh", "-c", left).stdout == ""
    assert in_container(target, "sh", "-c", "find /run/secrets -type f -size +0 2>/dev/null").stdout == ""
    assert in_container(target, "sh", "-c", "ls /tmp /opt; command -v git uv").stdout == "/opt:\ncxr\n\n/tmp:\n"


def test_data_steps_run_in_the_data_image(in_container, tmp_path: Path):
    tmp_path.chmod(0o777)
    place = ("--volume", f"{tmp_path}:/work", "--workdir", "/work", "--user", "10001:10001")
    for words in (
        ["fetch", "--phantom_images", "40", "--phantom_seed", "1"],
        ["validate"],
        ["resplit"],
        ["preprocess", "--prepared", "prepared", "--recipe", "s2_resize", "--size", "48"],
    ):
        answer = in_container("data", "cxr", *words, options=place)
        assert answer.returncode == 0, answer.stderr
    owners = {path.stat().st_uid for path in (tmp_path / "prepared").iterdir()}
    assert owners == {10001}


def test_training_in_the_data_image_names_the_training_image(in_container):
    assert "No module named 'tensorflow'" in in_container("data", "python", "-c", "import tensorflow").stderr
    make = (
        "cd /tmp; mkdir manifest splits prepared; cxr train --model any --architecture three_block --tracking_uri '' "
    )
    make += "--manifest manifest --splits splits --prepared prepared --trained trained"
    answer = in_container("data", "sh", "-c", make)
    assert answer.returncode == 2
    assert "cxr train: expected the training image (cxr-train)" in answer.stderr
    assert "received the image CXR_IMAGE=data" in answer.stderr


def test_a_component_given_nothing_says_so(in_container):
    answer = in_container("train", "cxr", "evaluate", "--model", "three_block")
    assert answer.returncode == 2
    assert re.search(r"cxr evaluate: .*(missing|expected)", answer.stderr)


@pytest.mark.parametrize("image", TARGETS)
def test_sigterm_ends_a_step_at_once(tag, image):
    start = ["docker", "run", "--detach", "--read-only", "--tmpfs", "/tmp", f"cxr-{image}:{tag}"]
    words = ["cxr", "fetch", "--phantom_images", "100000", "--data", "/tmp/data", "--downloads", "/tmp/d"]
    container = subprocess.run([*start, *words], capture_output=True, text=True, check=True).stdout.strip()
    try:
        deadline = time.monotonic() + 60
        probe = ["docker", "exec", container, "sh", "-c", "ls -d /tmp/.data.partial-*"]
        while subprocess.run(probe, capture_output=True).returncode and time.monotonic() < deadline:
            time.sleep(0.2)
        begun = time.monotonic()
        subprocess.run(["docker", "stop", "--time", "30", container], capture_output=True, check=True)
        seconds = time.monotonic() - begun
        status = subprocess.run(
            ["docker", "inspect", "--format", "{{.State.ExitCode}}", container], capture_output=True, text=True
        ).stdout.strip()
        assert status == "143"  # 137 is that of a killed one
        assert seconds < 15
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True)
