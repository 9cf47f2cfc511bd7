"""Tasks of a pipeline: a step with its values from ``params.yaml`` and what its container needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.errors import ParameterError
from cxr.kubeflow import CONTAINERS
from cxr.kubeflow.components import ABSENT, IMAGES, USER, argument, component, pieces
from cxr.kubeflow.container_settings import Containers
from cxr.lineage import provenance
from cxr.steps import step
from cxr.steps.parameters import gather
from cxr.steps.tracking_fields import Tracked

if TYPE_CHECKING:
    from kfp.dsl import PipelineTask
    from kfp.dsl.base_component import BaseComponent

AGAIN = frozenset({"fetch", "preprocess", "reference", "train", "evaluate", "ensemble", "register", "predict"})
"""Steps that may be tried again. What validate and resplit refuse, they refuse again."""
UNCACHED = frozenset({"register", "predict", "outcome"})
"""Steps that are about the world outside: the registry, or the images, may have changed since."""
FROM_STORE = frozenset({"fetch", "predict"})
"""Steps that read images from an S3 store."""
GPU_IMAGE = "cxr-train-gpu"
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")
MLFLOW_KEYS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
CHECKPOINTS = "/checkpoints"
"""Where the disk for checkpoints is mounted."""


class Graph:
    """What a pipeline script wires together.

    Attributes:
        settings: section ``containers``.
        models: name of each model to the recipe of its images.
        recipes: recipes that these models use.
        source: where the images come from, unless a run says otherwise.
        data_version: md5 of the images in a DVC remote; ``null`` if they are not taken from one.
    """

    def __init__(self, sections: Mapping[str, Any], pointer: Path = Path("data.dvc")) -> None:
        """Read the values.

        Args:
            sections: sections of the parameter file.
            pointer: DVC's pointer to the images.

        Raises:
            ParameterError: listing what is wrong in the section ``containers``, or if a data version is wanted and
                there is none.
        """
        self._sections = {name: section for name, section in sections.items() if name != CONTAINERS}
        self.settings = Containers.read(sections)
        chosen = dict(sections.get("models") or {})
        if self.settings.transfer:
            chosen |= dict(sections.get("transfer") or {})
        if not chosen:
            raise ParameterError(["expected models in the section models, received none"])
        self.models: dict[str, str] = {name: str(values["recipe"]) for name, values in chosen.items()}
        self.recipes = tuple(dict.fromkeys(self.models.values()))
        self.source = str((sections.get("fetch") or {}).get("source", "phantom"))
        self.data_version = ABSENT
        if self.settings.remote:
            version = provenance.data_md5(pointer)
            if version is None:
                raise ParameterError(
                    [
                        f"expected a data version in {pointer}, received none with {CONTAINERS}.remote="
                        f"{self.settings.remote}; run `dvc add data`, or set {CONTAINERS}.remote to null"
                    ]
                )
            self.source, self.data_version = self.settings.remote, version
        self._components: dict[str, BaseComponent] = {}

    def task(self, name: str, artifacts: Mapping[str, Any], **given: Any) -> PipelineTask:
        """Add a step to the pipeline that is being built.

        Args:
            name: the step.
            artifacts: field to the output of another task; where a step reads all models, model name to output.
            **given: parameters that the pipeline sets: those that choose a section, such as ``model``, and its own
                inputs.

        Returns:
            The task; its outputs are named as the step's paths.
        """
        single: dict[str, Any] = {}
        for field, output in artifacts.items():
            if isinstance(output, Mapping):
                single |= {pieces(field, model): one for model, one in output.items()}
            else:
                single[field] = output
        fixed = {field: value for field, value in given.items() if isinstance(value, str | int | float | bool)}
        made = self._component(name)(**{**self.values(name, fixed), **given}, **single)
        label = given.get("model") or given.get("recipe")
        made.set_display_name(f"{name} {label}" if label else name)
        return self._dressed(made, name)

    def values(self, name: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Values of a step as its component takes them.

        Args:
            name: the step.
            chosen: parameters that are fixed by the pipeline.

        Returns:
            What ``params.yaml`` says, in the types of Kubeflow; what it doesn't say is left to the step's defaults.

        Raises:
            ParameterError: if the file says something that the step doesn't know.
        """
        found = step(name)
        values, problems = gather(found, chosen, self._sections)
        if problems:
            raise ParameterError(problems)
        if self.settings.tracking_uri is not None and "tracking_uri" in found.model_fields:
            values["tracking_uri"] = self.settings.tracking_uri
        found.build(
            {**dict.fromkeys(found.artifacts(), "."), **values}
        )  # a wrong value is told now, not on the cluster
        return {field: argument(found, field, value) for field, value in values.items()}

    def keep_checkpoints(self, task: PipelineTask, model: str) -> None:
        """Give a training a disk that outlives its node, and remove the disk afterwards.

        Args:
            task: the training.
            model: its model.
        """
        from kfp import kubernetes

        wanted = self.settings.checkpoints
        if wanted.size is None:
            return
        disk = kubernetes.CreatePVC(
            pvc_name_suffix=f"-{model.replace('_', '-')}",
            access_modes=["ReadWriteOnce"],
            size=wanted.size,
            storage_class_name=wanted.storage_class,
        )
        kubernetes.mount_pvc(task, pvc_name=disk.outputs["name"], mount_path=CHECKPOINTS)
        kubernetes.DeletePVC(pvc_name=disk.outputs["name"]).after(task)

    def checkpoints(self) -> str:
        """Folder for a training's checkpoints.

        Returns:
            On the disk that outlives the node, if there is one.
        """
        return CHECKPOINTS if self.settings.checkpoints.size else "/tmp/checkpoints"

    def mount_images(self, task: PipelineTask) -> None:
        """Let a task read the volume with images to score, if there is one.

        Args:
            task: the task.
        """
        from kfp import kubernetes

        volume = self.settings.images
        if volume.claim is not None:
            kubernetes.mount_pvc(task, pvc_name=volume.claim, mount_path=volume.path)

    def outcome(self) -> PipelineTask:
        """Add the task that tells how the run went; it is for an exit handler.

        Returns:
            The task.
        """
        api = self.settings.api
        return self.task("outcome", {}, **({"api": api} if api else {}))

    def _cached(self, name: str, image: str) -> bool:
        """Whether Kubeflow may take the outputs of an earlier run with the same inputs."""
        if name == "fetch" and self.data_version == ABSENT and self.source != "phantom":
            return False  # what an address holds may have changed
        return self.settings.caching and self.settings.names_code(image) and name not in UNCACHED

    def _component(self, name: str) -> BaseComponent:
        if name not in self._components:
            self._components[name] = component(name, tuple(self.models))
        return self._components[name]

    def _dressed(self, task: PipelineTask, name: str) -> PipelineTask:
        """Give a task its image, resources, secrets and rules."""
        from kfp import kubernetes

        settings, image = self.settings, IMAGES[name]
        trains_on_gpu = name == "train" and settings.gpu.count > 0
        if trains_on_gpu:
            image = GPU_IMAGE
        task.set_container_image(settings.image(image))
        wanted = settings.of(name)
        task.set_cpu_request(wanted.cpu).set_cpu_limit(wanted.cpu)
        task.set_memory_request(wanted.memory).set_memory_limit(wanted.memory)
        kubernetes.set_timeout(task, round(3600 * wanted.hours))
        if trains_on_gpu:
            task.set_accelerator_type(settings.gpu.type).set_accelerator_limit(settings.gpu.count)
            for key, value in settings.gpu.node_selector.items():
                kubernetes.add_node_selector(task, key, value)
            for toleration in settings.gpu.tolerations:
                kubernetes.add_toleration(task, **toleration)
        if name == "train" and settings.shared_memory:
            kubernetes.empty_dir_mount(
                task, volume_name="shared-memory", mount_path="/dev/shm", medium="Memory",
                size_limit=settings.shared_memory,
            )  # fmt: skip
        if name in AGAIN and settings.retries.count:
            again = settings.retries
            task.set_retry(again.count, f"{again.seconds}s", again.factor, f"{again.longest}s")
        task.set_caching_options(self._cached(name, image))
        # What a namespace with the level "restricted" demands.
        kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
        kubernetes.set_image_pull_policy(task, settings.pull)
        if settings.secrets.image_pull:
            kubernetes.set_image_pull_secrets(task, [settings.secrets.image_pull])
        if name in FROM_STORE and settings.secrets.s3:
            kubernetes.use_secret_as_env(task, settings.secrets.s3, {key: key for key in S3_KEYS})
        if issubclass(step(name), Tracked) and settings.secrets.mlflow:
            kubernetes.use_secret_as_env(task, settings.secrets.mlflow, {key: key for key in MLFLOW_KEYS})
        kubernetes.use_field_path_as_env(task, provenance.PIPELINE_RUN, "metadata.labels['pipeline/runid']")
        if image in settings.digests:
            task.set_env_variable(provenance.IMAGE_DIGEST, settings.image(image))
        return task
