"""The image of the DICOM node, started with the command, the rights and the volumes that Kubernetes gives it."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.request
from pathlib import Path

import yaml

from cxr.kubeflow.components import CONTAINER_USER
from support.dicom_node import PACS_TITLE, ReportArchive, send, wait_for, write_radiographs
from support.kustomize import KUBERNETES
from support.loopback import free_port
from support.model_folders import write_models
from support.tls_files import write_tls_files

MANIFEST = KUBERNETES / "components" / "node" / "node.yaml"
IMAGES = 6
STATE = ("inspect", "--format")


def docker(*arguments: str) -> str:
    """Run docker and return everything that it writes."""
    return subprocess.run(
        ["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
    ).stdout.strip()


def kubernetes_command(**values: object) -> list[str]:
    """Command of the pod, with other values of some parameters."""
    _, stateful_set = yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))
    (container,) = stateful_set["spec"]["template"]["spec"]["containers"]
    flags = dict(argument.split("=", 1) for argument in container["args"])
    flags |= {f"--{name}": str(value) for name, value in values.items()}
    return [*container["command"], *(f"{flag}={value}" for flag, value in flags.items())]


def pod_options(*volumes: str) -> list[str]:
    """Options of docker for what the pod says of rights and volumes; the network is that of this machine."""
    user = f"{CONTAINER_USER}:{CONTAINER_USER}"
    rights = ["--user", user, "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"]
    limits = ["--memory", "4g", "--tmpfs", "/tmp:size=3g", "--network", "host"]
    return [*rights, *limits, *(word for volume in volumes for word in ("--volume", volume))]


def give(path: Path, mode: int) -> None:
    """Give a file to the group of the container, as Kubernetes does with `fsGroup`; else to everybody."""
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(path, 0, CONTAINER_USER)
    path.chmod(mode if is_root else mode | mode >> 3 & 0o7)


def is_healthy(port: int) -> bool:
    """Ask as the probes do."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def test_a_pod_answers_over_tls_as_an_ordinary_user_with_a_read_only_root(tag: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path / "model")
    images = write_radiographs(tmp_path / "images", folders.images, IMAGES)
    certificates = write_tls_files(tmp_path / "certificates", "node", "pacs")
    (tmp_path / "tls").mkdir()
    files = {"tls.crt": "certificate", "tls.key": "key", "ca.crt": "authorities"}
    for name, field in files.items():
        give(shutil.copyfile(getattr(certificates["node"], field), tmp_path / "tls" / name), 0o440)
    (tmp_path / "queue").mkdir()
    give(tmp_path / "queue", 0o2770)
    pacs = ReportArchive(tls=certificates["pacs"])
    port, status_port = free_port(), free_port()
    volumes = (f"{tmp_path}/queue:/queue", f"{tmp_path}/tls:/tls:ro", f"{tmp_path}/model:/model:ro")
    command = kubernetes_command(
        model="/model/models/three_block", capture="true", host="127.0.0.1", port=port, min_free_megabytes=1,
        status_host="127.0.0.1", status_port=status_port, destination=f"dicoms://{PACS_TITLE}@127.0.0.1:{pacs.port}",
    )  # fmt: skip
    container = docker(
        "run", "--detach", *pod_options(*volumes), "--entrypoint", command[0], f"cxr-node:{tag}", *command[1:]
    )
    try:
        wait_for(lambda: is_healthy(status_port) or docker(*STATE, "{{.State.Running}}", container) == "false")
        assert is_healthy(status_port), docker("logs", container)
        assert send(port, images[0]) != 0, "without a certificate"
        assert send(port, *images, tls=certificates["pacs"]) == 0, docker("logs", container)
        wait_for(lambda: len(pacs.received) == 2 * IMAGES)
        assert {report.Modality for report in pacs.received} == {"SR", "OT"}
        assert "Read-only file system" in docker("exec", container, "touch", "/opt/cxr/x")
        assert docker("exec", container, "id", "-u") == str(CONTAINER_USER)
        queue = tmp_path / "queue" / "node"
        assert (queue.stat().st_uid, queue.stat().st_mode & 0o777) == (CONTAINER_USER, 0o700)
        docker("stop", container)
        assert docker(*STATE, "{{.State.ExitCode}}", container) == "143", docker("logs", container)
    finally:
        docker("rm", "--force", container)
        pacs.stop()
