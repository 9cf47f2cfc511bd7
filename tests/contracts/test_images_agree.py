"""The files for building images agree: Dockerfiles, scripts, the bake file, requirement files, components."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cxr import __version__
from cxr.cli.main import parse_step
from cxr.kubeflow.components import CONTAINER_USER, component_images
from cxr.serving.rest.supervisor import EXIT_GRACE_SECONDS
from cxr.steps import load_step
from cxr.steps.serve import Serve
from support.loopback import free_port

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "components" / "Dockerfile"
BUILD = ROOT / "components" / "build.sh"
PROGRAMS = Path(sys.executable).parent
ONLY_TRAINING = ("tensorflow", "keras", "mlflow", "optuna", "kfp", "docker")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def stages() -> dict[str, str]:
    """Stage of the Dockerfile to the stage or image that it starts from."""
    return {name: origin for origin, name in re.findall(r"^FROM (\S+) AS (\S+)$", text("components/Dockerfile"), re.M)}


def stage(name: str) -> str:
    """The lines of a stage of the Dockerfile."""
    block = re.search(rf"^FROM \S+ AS {name}$(.*?)(?=^FROM|\Z)", text("components/Dockerfile"), re.M | re.S)
    assert block is not None
    return block[1]


def exposed_ports(name: str) -> set[int]:
    return {int(port) for ports in re.findall(r"^EXPOSE ([\d ]+)$", stage(name), re.M) for port in ports.split()}


def requirements_of(target: str) -> list[str]:
    """Requirement files that an image's stages install, the first one first."""
    files: list[str] = []
    known = stages()
    while target in known:
        files = re.findall(r"install\.sh packages (\S+)", stage(target)) + files
        target = known[target]
    return files


def run_program(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize("name", ["components/Dockerfile", "mlflow/Dockerfile"])
def test_hadolint_finds_nothing(name: str) -> None:
    result = run_program(PROGRAMS / "hadolint", name)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", ["components/build.sh", "components/install.sh", ".ci/run", ".ci/containers"])
def test_shellcheck_finds_nothing(name: str) -> None:
    result = run_program(PROGRAMS / "shellcheck", "--external-sources", name)
    assert result.returncode == 0, result.stdout


def test_each_image_installs_the_requirement_file_of_its_need() -> None:
    assert requirements_of("data") == ["data.txt"]
    assert requirements_of("train") == ["data.txt", "run.txt", "weights.txt"]
    assert requirements_of("serve") == ["data.txt", "run.txt", "weights.txt", "serve.txt"]
    assert requirements_of("train-gpu") == ["data.txt", "run.txt", "weights.txt", "gpu.txt"]
    assert requirements_of("node") == ["data.txt", "run.txt", "weights.txt", "serve.txt", "pacs.txt"]
    known = {name for target in ("train-gpu", "node") for name in requirements_of(target)}
    assert all((ROOT / "requirements" / name).is_file() for name in known)


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ("data.txt", "run.txt"),
        ("run.txt", "weights.txt"),
        ("run.txt", "gpu.txt"),
        ("run.txt", "serve.txt"),
        ("serve.txt", "pacs.txt"),
    ],
)
def test_each_image_only_adds_packages_to_the_smaller_one(smaller: str, larger: str) -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^([\w.-]+==\S+)", text(f"requirements/{name}"), re.M))

    # TensorFlow with CUDA is the same package with an extra.
    assert {pin for pin in pins(smaller) - pins(larger) if not pin.startswith("tensorflow==")} == set()


def test_the_data_image_has_nothing_of_training() -> None:
    pinned = set(re.findall(r"^([\w.-]+)==", text("requirements/data.txt"), re.M))
    assert pinned & {"pandas", "dvc"} == {"pandas", "dvc"}
    assert pinned & set(ONLY_TRAINING) == set()


def test_the_same_images_are_built_everywhere() -> None:
    groups = re.search(r'group "default" \{\s*targets = \[(.*?)\]', text("docker-bake.hcl"), re.S)
    known = re.search(r"^known=\((.*)\)$", text("components/build.sh"), re.M)
    assert groups is not None and known is not None
    baked = re.findall(r'"([\w-]+)"', groups[1])
    assert known[1].split() == baked
    assert set(baked) - {"mlflow"} <= set(stages())
    assert {image.removeprefix("cxr-") for image in component_images().values()} <= set(baked)


def test_versions_and_base_images_are_the_same_everywhere() -> None:
    version = re.search(r'variable "VERSION" \{\s*default = "(.*)"', text("docker-bake.hcl"))
    assert version is not None and version[1] == __version__
    bases = set(re.findall(r"^FROM (python:\S+)", text("components/Dockerfile") + text("mlflow/Dockerfile"), re.M))
    bases |= set(re.findall(r"^base=(\S+)", text(".ci/containers"), re.M))
    bases |= set(re.findall(r'image\.base\.name="(\S+)"', text("components/Dockerfile")))
    assert len(bases) == 1


def test_steps_run_as_the_user_that_the_images_have() -> None:
    assert f"useradd --system --uid {CONTAINER_USER} " in text("components/Dockerfile")
    assert set(re.findall(r"^USER (\S+)$", text("components/Dockerfile"), re.M)) == {str(CONTAINER_USER)}


def test_a_missing_engine_is_reported() -> None:
    result = run_program(BUILD, "data", ENGINE="/nowhere/docker")
    assert result.returncode == 2
    assert "expected docker with BuildKit" in result.stderr and "/nowhere/docker" in result.stderr


def test_unknown_images_and_unreadable_secrets_are_refused(tmp_path: Path) -> None:
    result = run_program(BUILD, "training")
    assert result.returncode == 2
    assert "expected one of: data train train-gpu serve node mlflow; received target=training" in result.stderr
    result = run_program(BUILD, "data", CERTIFICATES=str(tmp_path / "none.crt"))
    assert result.returncode == 2
    assert "CERTIFICATES=" in result.stderr


def test_names_secrets_and_labels_reach_the_engine(tmp_path: Path) -> None:
    engine = tmp_path / "podman"
    engine.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n[ "$1" != image ] || echo 1234567890\n')
    engine.chmod(0o755)
    certificates = tmp_path / "own.crt"
    certificates.touch()
    result = run_program(
        BUILD, "data", "mlflow",
        ENGINE=str(engine), REGISTRY="registry.example.org/cxr/", VERSION="7", CERTIFICATES=str(certificates),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    data, mlflow = [call for call in (tmp_path / "calls").read_text().splitlines() if call.startswith("build ")]
    assert "--target data --ignorefile components/Dockerfile.dockerignore" in data
    assert "--tag registry.example.org/cxr/cxr-data:7 " in data
    assert f"--secret id=certificates,src={certificates}" in data and "id=pip" not in data
    assert "--file mlflow/Dockerfile " in mlflow and "--target" not in mlflow
    assert re.search(r"--build-arg VERSION=7 --build-arg REVISION=[0-9a-f]{40}(-dirty)? ", data)
    assert "| `cxr-data` | 1.23 GB |" in result.stdout


WITHOUT = """
import json, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {excluded}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from cxr.cli.main import main
for command in json.loads(sys.argv[1]):
    if status := main(command):
        sys.exit(status)
"""


@pytest.fixture(scope="module")
def without_training() -> str:
    """A program that runs commands of ``cxr``, given as JSON, with only the packages that data.txt pins."""
    from importlib.metadata import packages_distributions

    def normalize(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    pinned = {normalize(name) for name in re.findall(r"^([\w.-]+)==", text("requirements/data.txt"), re.M)}
    excluded = {
        module
        for module, owners in packages_distributions().items()
        if pinned.isdisjoint(map(normalize, owners)) and not {"cxr", "pip"} & set(owners)
    }
    assert set(ONLY_TRAINING) <= excluded
    return WITHOUT.format(excluded=excluded)


def test_data_steps_need_nothing_of_training(without_training: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(60):
        name = f"NORMAL/IM-{number:04}-0001.jpeg" if number % 2 else f"PNEUMONIA/person{number}_bacteria_1.jpeg"
        path = tmp_path / "radiographs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (72, 72), dtype=np.uint8)).save(path, quality=60)
    commands = (
        "fetch --source radiographs --expect any",
        f"validate --tracking_uri http://127.0.0.1:{free_port()}",
        "resplit",
        "preprocess --prepared prepared --recipe s2_resize --size 48",
    )
    words = json.dumps([command.split() for command in commands])
    result = subprocess.run(
        [sys.executable, "-c", without_training, words], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "prepared").is_dir()


def test_training_without_its_packages_names_the_image(without_training: str, tmp_path: Path) -> None:
    for folder in ("manifest", "splits", "prepared"):
        (tmp_path / folder).mkdir()
    arguments = [
        "train",
        "--model",
        "any",
        "--architecture",
        "three_block",
        "--manifest",
        "manifest",
        "--splits",
        "splits",
    ]
    arguments += ["--prepared", "prepared", "--trained", "trained", "--tracking_uri", ""]
    environment = os.environ | {"CXR_IMAGE": "data"}
    result = subprocess.run(
        [sys.executable, "-c", without_training, json.dumps([arguments])],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "cxr train: expected the training image (cxr-train)" in result.stderr
    assert "received the image CXR_IMAGE=data without it" in result.stderr
    assert not (tmp_path / "trained").exists()


def test_only_packages_of_an_extra_are_explained() -> None:
    from cxr.cli.optional_dependencies import explain_missing_package

    assert explain_missing_package(ModuleNotFoundError("No module named 'nothing'", name="nothing")) is None
    assert explain_missing_package(ModuleNotFoundError("No module named 'keras.none'", name="keras.none")) is not None


def test_only_files_that_the_dockerfile_copies_reach_the_build() -> None:
    ignored = text("components/Dockerfile.dockerignore").splitlines()
    assert ignored[0] == "*"
    copied = re.findall(r"^COPY (?!--from)(?:--chmod=\d+ )?(.*) \S+$", text("components/Dockerfile"), re.M)
    copied_folders = {word.split("/")[0] for line in copied for word in line.split()}
    allowed = {line[1:].split("/")[0] for line in ignored if line.startswith("!")}
    assert copied_folders == allowed


@pytest.mark.parametrize("name", ["components/Dockerfile", "mlflow/Dockerfile"])
def test_everybody_may_read_the_files_of_an_image_whatever_the_umask_of_the_checkout(name: str) -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) /opt/\S+$", text(name), re.M)
    assert copied
    assert all("--chmod=0755 " in files for files in copied), copied


@pytest.mark.parametrize("name", ["components/Dockerfile", "mlflow/Dockerfile"])
def test_a_health_check_asks_the_server_itself_and_no_proxy(name: str) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

    command = json.loads(re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", text(name), re.M)[0])
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY"), f"http://127.0.0.1:{free_port()}")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        port = str(server.server_address[1])
        threading.Thread(target=server.serve_forever, daemon=True).start()
        check = [sys.executable, *(word.replace("8080", port) for word in command[1:])]
        environment = {**os.environ, **proxies, "MLFLOW_PORT": port}
        healthy = subprocess.run(check, env=environment, capture_output=True, text=True, timeout=60)
        server.shutdown()
    gone = subprocess.run(check, env=environment, capture_output=True, timeout=60)
    assert (command[0], healthy.returncode, gone.returncode) == ("python", 0, 1), healthy.stderr


def test_the_image_and_the_cluster_start_an_existing_command() -> None:
    objects = yaml.safe_load(text("infra/kubernetes/components/champion/inference-service.yaml"))
    container = objects["spec"]["predictor"]["containers"][0]
    *_, name = container["command"]
    built = parse_step(load_step(name), container["args"])
    assert isinstance(built, Serve)
    ports = {port["containerPort"] for port in container["ports"]}
    ports |= exposed_ports("serve")
    ports |= {int(objects["spec"]["predictor"]["annotations"]["prometheus.io/port"])}
    assert ports == {built.port}
    grace_period = objects["spec"]["predictor"]["terminationGracePeriodSeconds"]
    assert grace_period > built.notice_seconds + built.end_seconds + EXIT_GRACE_SECONDS
    command = re.findall(r'exec cxr (\w+) (.*?) --tracking_uri \\"', stage("serve"))
    assert [name for name, _ in command] == [name]
    assert isinstance(parse_step(load_step(name), command[0][1].split()), Serve)
