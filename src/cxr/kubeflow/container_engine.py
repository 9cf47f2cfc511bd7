"""Runs of compiled pipelines in containers of this machine: docker, or podman through its socket."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.errors import InstallationError, PipelineError
from cxr.kubeflow.components import USER
from cxr.lineage.provenance import IMAGE_DIGEST

if TYPE_CHECKING:
    from docker import DockerClient

HOST = "DOCKER_HOST"
"""Environment variable with the engine's address, for every client of docker."""
SOCKETS = (
    "/var/run/docker.sock",
    "~/.docker/run/docker.sock",
    "$XDG_RUNTIME_DIR/podman/podman.sock",
    "/run/podman/podman.sock",
)
"""Where engines listen when the variable is not set."""
LAST_WORDS = 10
"""Seconds that a container has to end by itself when the run is interrupted."""


@dataclass(frozen=True)
class Ended:
    """A container that ended badly.

    Attributes:
        command: what ran in it, its first words.
        status: its exit status.
    """

    command: str
    status: int

    def __str__(self) -> str:
        killed = " (killed: more memory than there is, or by hand)" if self.status == 137 else ""
        return f"exit status {self.status} of `{self.command}`{killed}"


@dataclass
class Engine:
    """The engine of this machine.

    Attributes:
        rootless: whether it runs as an ordinary user; its root is then that user.
        failures: containers of the last run that ended badly, and did not end well when they were tried again.
    """

    rootless: bool
    failures: dict[tuple[str, ...], Ended] = field(default_factory=dict)

    @classmethod
    def find(cls) -> Engine:
        """Find the engine, and name it in the environment where kfp looks for it.

        Returns:
            The first that answers.

        Raises:
            InstallationError: if none does.
        """
        import docker

        given = os.environ.get(HOST)
        places = [given] if given else [f"unix://{path}" for path in _sockets()]
        for place in places:
            client = None
            try:
                client = docker.DockerClient(base_url=place, version="auto")
                options = client.info().get("SecurityOptions") or ()
            except docker.errors.DockerException:
                continue
            finally:
                if client is not None:
                    client.close()
            os.environ[HOST] = place
            return cls(rootless="name=rootless" in options)
        raise InstallationError(
            f"expected docker, or podman with its socket, to answer; received {HOST}={given or ''!r} and an answer "
            f"from none of: {', '.join(places) or 'no socket'}; start docker, or podman with `systemctl --user start "
            f"podman.socket` or `podman system service --time 0 unix:///tmp/podman.sock`, and set {HOST} to its address"
        )

    def prepare(self, folder: Path) -> None:
        """Make a folder in which containers may write, whoever they run as.

        Args:
            folder: the folder.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0 and not self.rootless:
            os.chown(folder, USER, -1)

    def options(self, environment: Mapping[str, str], shared_memory: str) -> dict[str, Any]:
        """Say how containers run here: as on a cluster, as nobody special and with a read-only root file system.

        Args:
            environment: variables for every container.
            shared_memory: size of ``/dev/shm``, e.g. ``"1g"``.

        Returns:
            Arguments of ``kfp.local.DockerRunner``.
        """
        if self.rootless:
            user = "0:0"  # who is the person that runs this
        elif os.getuid() == 0:
            user = str(USER)
        else:
            user = f"{os.getuid()}:{os.getgid()}"  # whose files the outputs will be
        chosen = {
            "environment": dict(environment),
            "user": user,
            "read_only": True,
            "tmpfs": {"/tmp": "mode=1777"},
            "shm_size": shared_memory,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
        }
        if shares_network():
            return chosen | {"network_mode": "host"}
        return chosen | {"extra_hosts": {"host.docker.internal": "host-gateway"}}

    def run(self, package: Path, root: Path, options: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
        """Run a compiled pipeline, step by step.

        Args:
            package: file that kfp's compiler wrote.
            root: folder for the outputs, as :meth:`prepare` makes it.
            options: what :meth:`options` gave.
            arguments: values for the pipeline's own arguments.

        Raises:
            PipelineError: if a step failed; those after it did not run.
            InstallationError: if an image is not here.
        """
        from kfp import components, local

        self.failures.clear()
        pipeline = components.load_component_from_file(str(package))
        local.init(runner=local.DockerRunner(**options), pipeline_root=str(root.resolve()), raise_on_error=True)
        with self._asking(), warnings.catch_warnings():
            # Processor time, memory and tolerations are a cluster's.
            warnings.filterwarnings("ignore", message=r"Task .* have no effect in the current local runner")
            try:
                pipeline(**arguments)
            except RuntimeError as error:
                # What is no container's failure is kfp's own, in its words.
                self.failures = self.failures or {(): Ended(str(error), 1)}
        # Asked here too: an exit handler that ends well could hide a step that did not.
        if self.failures:
            said = "; ".join(map(str, self.failures.values()))
            raise PipelineError(
                f"expected every step to end well, received {said}; its own words stand above, its files are in {root}"
            )

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Have kfp's containers stay until they were asked how they ended.

        kfp 2.17 has the engine remove each container as soon as it ends, and takes one that is gone before it could
        be asked for a success: a step that fails at once would pass.
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
            found = client.images.get(image)
        except docker.errors.ImageNotFound:
            raise InstallationError(
                f"expected the image to be on this machine, received image={image}; build it with `make images`"
            ) from None
        environment = {**options.pop("environment", {}), IMAGE_DIGEST: found.id}
        container = client.containers.create(found, command, volumes=volumes, environment=environment, **options)
        try:
            container.start()
            for line in container.logs(stream=True, follow=True):
                sys.stdout.write(line.decode(errors="replace"))
            status = int(container.wait()["StatusCode"])
        except BaseException:
            with contextlib.suppress(docker.errors.APIError):
                container.stop(timeout=LAST_WORDS)
            raise
        finally:
            container.remove(force=True)
        words = tuple(map(str, command))
        self.failures.pop(words, None)
        if status:
            self.failures[words] = Ended(" ".join(words[:2]), status)
        return status


def shares_network() -> bool:
    """Whether containers can have this machine's own network, and so reach a server that listens to it alone.

    Returns:
        True on Linux; elsewhere engines run in a virtual machine.
    """
    return sys.platform == "linux"


def host_name() -> str:
    """Name of this machine as containers know it.

    Returns:
        An address or a name.
    """
    return "127.0.0.1" if shares_network() else "host.docker.internal"


def _sockets() -> list[Path]:
    paths = (Path(os.path.expandvars(place)).expanduser() for place in SOCKETS)
    return [path for path in paths if path.exists()]
