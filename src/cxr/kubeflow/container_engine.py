"""Runs compiled pipelines in containers on this machine, with docker, or with podman through its socket."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.errors import InstallationError, PipelineError
from cxr.kubeflow.components import CONTAINER_USER
from cxr.lineage.provenance import IMAGE_DIGEST_VARIABLE

if TYPE_CHECKING:
    from docker import DockerClient

HOST_VARIABLE = "DOCKER_HOST"
"""Environment variable with the engine's address, which every docker client reads."""
SOCKETS = (
    "/var/run/docker.sock",
    "~/.docker/run/docker.sock",
    "$XDG_RUNTIME_DIR/podman/podman.sock",
    "/run/podman/podman.sock",
)
"""Sockets of engines, for when the variable is not set."""
SHARD_FLAG = "--shard"
"""Flag of a command that works on one shard."""
STOP_TIMEOUT = 10
"""Seconds that a container has to stop by itself when the run is interrupted."""


@dataclass(frozen=True)
class ContainerFailure:
    """A container that failed.

    Attributes:
        command: the first two words of its command, and its shard if it has one.
        status: its exit status.
    """

    command: str
    status: int

    def __str__(self) -> str:
        killed = " (killed: not enough memory, or by hand)" if self.status == 137 else ""
        return f"exit status {self.status} of `{self.command}`{killed}"


@dataclass
class ContainerEngine:
    """The container engine of this machine.

    Attributes:
        rootless: whether it runs as an ordinary user; root in its containers is then that user.
        failures: command to failure of the containers of the last run that failed and did not succeed when retried.
    """

    rootless: bool
    failures: dict[tuple[str, ...], ContainerFailure] = field(default_factory=dict)

    @classmethod
    def find(cls) -> ContainerEngine:
        """Find the engine, and set its address in the environment variable that kfp reads.

        Returns:
            The first engine that responds.

        Raises:
            InstallationError: if none responds.
        """
        import docker

        configured = os.environ.get(HOST_VARIABLE)
        addresses = [configured] if configured else [f"unix://{path}" for path in _existing_sockets()]
        for address in addresses:
            client = None
            try:
                client = docker.DockerClient(base_url=address, version="auto")
                options = client.info().get("SecurityOptions") or ()
            except docker.errors.DockerException:
                continue
            finally:
                if client is not None:
                    client.close()
            os.environ[HOST_VARIABLE] = address
            return cls(rootless="name=rootless" in options)
        raise InstallationError(
            "expected docker, or podman with its socket, to respond; received "
            f"{HOST_VARIABLE}={configured or ''!r} and no response from: {', '.join(addresses) or 'no socket'}; start "
            "docker, or podman with `systemctl --user start podman.socket` or `podman system service --time 0 "
            f"unix:///tmp/podman.sock`, and set {HOST_VARIABLE} to its address"
        )

    def prepare(self, folder: Path) -> None:
        """Create a folder in which containers may write, whichever user they run as."""
        folder.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0 and not self.rootless:
            os.chown(folder, CONTAINER_USER, -1)

    def options(self, environment: Mapping[str, str], shared_memory: str) -> dict[str, Any]:
        """Options of containers, as on a cluster: a user without rights and a read-only root file system.

        Args:
            environment: variables for every container.
            shared_memory: size of ``/dev/shm``, e.g. ``"1g"``.

        Returns:
            Arguments of ``kfp.local.DockerRunner``.
        """
        if self.rootless:
            user = "0:0"  # root in the container is the user who runs this command
        elif os.getuid() == 0:
            user = str(CONTAINER_USER)
        else:
            user = f"{os.getuid()}:{os.getgid()}"  # the outputs will belong to the user who runs this command
        options = {
            "environment": dict(environment),
            "user": user,
            "read_only": True,
            "tmpfs": {"/tmp": "mode=1777"},
            "shm_size": shared_memory,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
        }
        if shares_host_network():
            return options | {"network_mode": "host"}
        return options | {"extra_hosts": {"host.docker.internal": "host-gateway"}}

    def run(self, package: Path, root: Path, options: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
        """Run a compiled pipeline, step by step.

        Args:
            package: file that kfp's compiler wrote.
            root: folder for the outputs, as :meth:`prepare` creates it.
            options: result of :meth:`options`.
            arguments: values for the pipeline's own arguments.

        Raises:
            PipelineError: if a step failed; the steps after it did not run.
            InstallationError: if an image is not on this machine.
        """
        from kfp import components, local

        self.failures.clear()
        pipeline = components.load_component_from_file(str(package))
        local.init(runner=local.DockerRunner(**options), pipeline_root=str(root.resolve()), raise_on_error=True)
        with self._own_container_runner(), warnings.catch_warnings():
            # CPU, memory and tolerations have an effect only on a cluster.
            warnings.filterwarnings("ignore", message=r"Task .* have no effect in the current local runner")
            try:
                pipeline(**arguments)
            except RuntimeError as error:
                # Without a failed container the error comes from kfp itself.
                self.failures = self.failures or {(): ContainerFailure(str(error), 1)}
        # Checked here, because an exit handler that succeeds could hide a failed step.
        if self.failures:
            failures = "; ".join(map(str, self.failures.values()))
            raise PipelineError(
                f"expected every step to succeed, received {failures}; its own output is above, its files are in {root}"
            )

    @contextlib.contextmanager
    def _own_container_runner(self) -> Iterator[None]:
        """Let kfp start containers with :meth:`_run_container`, which keeps them until their exit status is read.

        kfp 2.17 lets the engine remove each container as soon as it ends. If the container is gone before its status
        is read, kfp counts it as a success: a step that fails at once would pass.
        """
        from kfp.local import docker_task_handler

        original = docker_task_handler.run_docker_container
        docker_task_handler.run_docker_container = self._run_container
        try:
            yield
        finally:
            docker_task_handler.run_docker_container = original

    def _run_container(
        self, client: DockerClient, image: str, command: list[str], volumes: dict[str, Any], **options: Any
    ) -> int:
        import docker

        try:
            local_image = client.images.get(image)
        except docker.errors.ImageNotFound:
            raise InstallationError(
                f"expected the image to be on this machine, received image={image}; build it with `make images`"
            ) from None
        environment = {**options.pop("environment", {}), IMAGE_DIGEST_VARIABLE: local_image.id}
        container = client.containers.create(local_image, command, volumes=volumes, environment=environment, **options)
        try:
            container.start()
            for line in container.logs(stream=True, follow=True):
                sys.stdout.write(line.decode(errors="replace"))
            status = int(container.wait()["StatusCode"])
        except BaseException:
            with contextlib.suppress(docker.errors.APIError):
                container.stop(timeout=STOP_TIMEOUT)
            raise
        finally:
            container.remove(force=True)
        key = tuple(map(str, command))
        self.failures.pop(key, None)
        if status:
            self.failures[key] = ContainerFailure(_short_command(key), status)
        return status


def shares_host_network() -> bool:
    """Whether containers can use this machine's own network and so reach a server on its loopback address.

    Returns:
        True on Linux; on other systems engines run in a virtual machine.
    """
    return sys.platform == "linux"


def host_name() -> str:
    """Name or address of this machine as its containers know it."""
    return "127.0.0.1" if shares_host_network() else "host.docker.internal"


def _short_command(words: Sequence[str]) -> str:
    """The first two words of a command, such as ``cxr train``, and its shard if it has one."""
    shard = words.index(SHARD_FLAG) if SHARD_FLAG in words else len(words)
    return " ".join([*words[:2], *words[shard : shard + 2]])


def _existing_sockets() -> list[Path]:
    paths = (Path(os.path.expandvars(socket)).expanduser() for socket in SOCKETS)
    return [path for path in paths if path.exists()]
