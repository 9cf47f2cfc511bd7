"""Tasks of a pipeline: a step with its values from ``params.yaml`` and what its container needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.data.dvc_hashes import pointer_files
from cxr.data.fetching.archives import ARCHIVE_SUFFIXES
from cxr.errors import ParameterError
from cxr.images.shards import WHOLE, all_shards
from cxr.kubeflow import CONTAINERS_SECTION
from cxr.kubeflow.components import CONTAINER_USER, NO_VALUE, build_component, changed_values, model_input_name
from cxr.kubeflow.container_settings import ContainerSettings
from cxr.lineage import provenance
from cxr.steps import load_step
from cxr.steps.cache_fields import CachingStep
from cxr.steps.parameters import merge_parameters
from cxr.steps.shard_fields import ShardedStep
from cxr.steps.tracking_fields import TrackingStep

if TYPE_CHECKING:
    from kfp.dsl import Collected, ParallelFor, PipelineConfig, PipelineTask

    from cxr.steps.base import Step

S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")
MLFLOW_KEYS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
TRAINING_ON_NODES = "train_on_nodes"
"""Step that takes the place of ``train`` where several nodes train one network."""
CHECKPOINTS_MOUNT = "/checkpoints"
"""Path in a container at which the disk for checkpoints is mounted, or the volume that several nodes share."""


class PipelineGraph:
    """Makes the tasks that a pipeline script connects.

    Attributes:
        settings: section ``containers``.
        models: name of each classifier to train and register, to the recipe of its images.
        detectors: the same for the detectors of opacities.
        compared: classifier that the detectors are compared with; None without detectors.
        source: where the images come from, unless a run overrides it.
        data_version: md5 of the images in a DVC remote; ``null`` if they do not come from one.
        indexes_images: whether the data set travels as an index of the images, which stay in an object store.
        shards: number of tasks that share the images in each step that works on every image.
    """

    def __init__(
        self, sections: Mapping[str, Any], models: Sequence[str] = (), pointer: Path = Path("data.dvc")
    ) -> None:
        """Read the values.

        Args:
            sections: sections of the parameter file.
            models: classifiers and detectors to train; empty takes all of the file.
            pointer: DVC's pointer to the images.

        Raises:
            ParameterError: listing what is wrong in the section ``containers``; if a model is unknown, or its name is
                used twice; if a DVC remote is set and the pointer has no data version; if the ensemble joins models
                that are not trained; or if there is no classifier to compare the detectors with.
        """
        self._sections = {name: section for name, section in sections.items() if name != CONTAINERS_SECTION}
        self.settings = ContainerSettings.read(sections)
        classifiers = _recipes_of(sections, "models", *(["transfer"] if self.settings.transfer else []))
        detectors = _recipes_of(sections, "regions") if self.settings.regions else {}
        if not classifiers:
            raise ParameterError(["expected models in the section models, received none"])
        twice = [name for name in detectors if name in classifiers]
        if twice:
            raise ParameterError(
                [f"expected names in the section regions that no other model has, received {', '.join(twice)}"]
            )
        known = [*classifiers, *detectors]
        unknown = [model for model in models if model not in known]
        if unknown:
            raise ParameterError([f"expected models among {', '.join(known)}; received {', '.join(unknown)}"])
        self.models = {name: recipe for name, recipe in classifiers.items() if not models or name in models}
        self.detectors = {name: recipe for name, recipe in detectors.items() if not models or name in models}
        self.compared = _compared_classifier(sections, classifiers) if self.detectors else None
        self._classifiers = classifiers
        members = (sections.get("ensemble") or {}).get("members") or []
        if self.models and not set(members) <= set(self.models):
            together = ", ".join(members)
            raise ParameterError(
                [
                    f"expected all models of ensemble.members in one run, received ensemble.members={members} and a "
                    f"run that trains {', '.join(self.models)}; train them together with --models '[{together}]' (all "
                    "models may be too many for one run), or leave ensemble.members empty"
                ]
            )
        self.source = str((sections.get("fetch") or {}).get("source", "phantom"))
        self.data_version = NO_VALUE
        images = (sections.get("fetch") or {}).get("phantom_images") if self.source == "phantom" else None
        if self.settings.remote:
            images = pointer_files(pointer)
            version = provenance.data_md5(pointer)
            if version is None:
                raise ParameterError(
                    [
                        f"expected a data version in {pointer}, received none with {CONTAINERS_SECTION}.remote="
                        f"{self.settings.remote}; run `dvc add data`, or set {CONTAINERS_SECTION}.remote to null"
                    ]
                )
            self.source, self.data_version = self.settings.remote, version
        self.indexes_images = self._travels_as_index()
        self.shards = self.settings.count_shards(images)

    @property
    def classifiers(self) -> dict[str, str]:
        """Name of each classifier to train, to its recipe: the models, and the one to compare detectors with."""
        return {name: recipe for name, recipe in self._classifiers.items() if name in {*self.models, self.compared}}

    @property
    def recipes(self) -> tuple[str, ...]:
        """Recipes that the classifiers and detectors use, each once."""
        return tuple(dict.fromkeys([*self.classifiers.values(), *self.detectors.values()]))

    def task(self, name: str, artifacts: Mapping[str, Any], **parameters: Any) -> PipelineTask:
        """Add a step to the pipeline that is being built.

        Args:
            name: the step. Where several nodes train one network, another step takes the place of ``train``.
            artifacts: field to the output of another task, or to those of the tasks of all shards; for a step that
                reads all models, field to a mapping from model name to output.
            **parameters: parameters that the pipeline sets: those that choose a section, such as ``model``, and the
                pipeline's own inputs.

        Returns:
            The task; its outputs have the names of the step's paths.
        """
        from kfp.dsl import Collected

        inputs: dict[str, Any] = {}
        models: dict[str, None] = {}
        for field, output in artifacts.items():
            if isinstance(output, Mapping):
                inputs |= {model_input_name(field, model): folder for model, folder in output.items()}
                models |= dict.fromkeys(output)
            else:
                # kfp changes what it collects for a task, so each task gets its own.
                inputs[field] = Collected(output.output) if isinstance(output, Collected) else output
        run_inputs = {field: value for field, value in parameters.items() if not isinstance(value, str)}
        step = TRAINING_ON_NODES if name == "train" and self.settings.nodes.count > 1 else name
        chosen = {field: str(parameters[field]) for field in parameters.keys() - run_inputs}
        constants = self.constants(step, chosen, {*artifacts, *run_inputs})
        collected = [field for field, output in artifacts.items() if isinstance(output, Collected)]
        component = build_component(step, tuple(models), constants, tuple(run_inputs), tuple(artifacts), collected)
        task = component(**run_inputs, **inputs)
        label = parameters.get("model") or parameters.get("recipe")
        task.set_display_name(f"{name} {label}" if label else name)
        return self._with_pod_settings(task, load_step(step), is_shard="shard" in run_inputs)

    def each_shard(self, label: str) -> ParallelFor:
        """Add the tasks of a block once for each shard.

        Args:
            label: what the tasks do.

        Returns:
            A block that gives the shard, for the parameter ``shard`` of a task.
        """
        from kfp.dsl import ParallelFor

        return ParallelFor(list(map(str, all_shards(self.shards))), name=f"shards of {label}")

    def image_results(self, name: str, artifacts: Mapping[str, Any]) -> dict[str, Collected]:
        """Let tasks look at the images for a step, where there are several shards.

        Args:
            name: the step of each shard, ``validate_shard`` or ``reference_shard``.
            artifacts: its folders, as in :meth:`task`.

        Returns:
            The folders for the step, as in :meth:`task`; none if the step looks at the images itself.
        """
        from kfp.dsl import Collected

        if self.shards == 1:
            return {}
        with self.each_shard(name.removesuffix("_shard")) as shard:
            results = self.task(name, artifacts, shard=shard).outputs["results"]
        return {"image_results": Collected(results)}

    def prepared_images(self, artifacts: Mapping[str, Any], recipe: str) -> Any:
        """Prepare the images, in one task or in one for each shard.

        Args:
            artifacts: the folders of ``preprocess``, as in :meth:`task`.
            recipe: name of the recipe.

        Returns:
            The folder of the prepared images, or those of all shards.
        """
        from kfp.dsl import Collected

        if self.shards == 1:
            return self.task("preprocess", artifacts, recipe=recipe).outputs["prepared"]
        with self.each_shard(f"preprocess {recipe}") as shard:
            prepared = self.task("preprocess", artifacts, recipe=recipe, shard=shard).outputs["prepared"]
        return Collected(prepared)

    def constants(self, name: str, parameters: Mapping[str, str], inputs: Set[str]) -> dict[str, Any]:
        """Values of a step that are the same in every run of the pipeline.

        Args:
            name: the step.
            parameters: parameters that the pipeline sets.
            inputs: fields whose values come from other tasks or from the inputs of the pipeline.

        Returns:
            These and the values of ``params.yaml``, without those that equal the step's default.

        Raises:
            ParameterError: if the file has a value that the step does not know or accept.
        """
        step_class = load_step(name)
        values, problems = merge_parameters(step_class, parameters, self._sections)
        if problems:
            raise ParameterError(problems)
        if self.settings.tracking_uri is not None and "tracking_uri" in step_class.model_fields:
            values["tracking_uri"] = self.settings.tracking_uri
        if issubclass(step_class, CachingStep):
            values |= self._cache_values()
        if name == "fetch":
            values["index"] = self.indexes_images
        if name == TRAINING_ON_NODES:
            nodes = self.settings.training_nodes(self._training_image(step_class), MLFLOW_KEYS)
            values |= {"nodes": nodes.model_dump(mode="json", exclude_defaults=True), "checkpoints": CHECKPOINTS_MOUNT}
        if issubclass(step_class, ShardedStep):
            values["shards"] = 1  # shards are tasks here
        # Building the step reports a wrong value now and not on the cluster.
        paths = [
            path
            for path, marker in step_class.artifacts().items()
            if path in inputs or not getattr(marker, "optional", False)
        ]
        step_class.build({**dict.fromkeys(paths, "."), **values, **self._run_values(name)})
        return changed_values(step_class, values)

    def mount_checkpoints(self, task: PipelineTask, model: str) -> None:
        """Give a training on one node a disk that outlives the node, and delete the disk afterwards.

        Args:
            task: the training.
            model: its model.
        """
        from kfp import kubernetes

        disk = self.settings.checkpoints
        if disk.size is None or (model in self.classifiers and self.settings.nodes.count > 1):
            return
        # The class "" would be a volume that a person made by hand. Without the input, the cluster takes its default.
        storage_class = {"storage_class_name": disk.storage_class} if disk.storage_class else {}
        claim = kubernetes.CreatePVC(
            pvc_name_suffix=f"-{model.replace('_', '-')}",
            access_modes=["ReadWriteOnce"],
            size=disk.size,
            **storage_class,
        )
        kubernetes.mount_pvc(task, pvc_name=claim.outputs["name"], mount_path=CHECKPOINTS_MOUNT)
        kubernetes.DeletePVC(pvc_name=claim.outputs["name"]).after(task)

    def checkpoint_folder(self) -> str:
        """Folder for a training's checkpoints; it is on the disk that outlives the node, if there is one."""
        return CHECKPOINTS_MOUNT if self.settings.checkpoints.size else "/tmp/checkpoints"

    def mount_images(self, task: PipelineTask) -> None:
        """Let a task read the volume with images to score, if there is one."""
        from kfp import kubernetes

        volume = self.settings.images
        if volume.claim is not None:
            kubernetes.mount_pvc(task, pvc_name=volume.claim, mount_path=volume.path)

    def pipeline_config(self) -> PipelineConfig:
        """Limit of the whole run: the limit of a task counts only from the start of its pod."""
        from kfp.dsl import PipelineConfig

        return PipelineConfig(active_deadline_seconds=round(3600 * self.settings.hours))

    def outcome_task(self) -> PipelineTask:
        """Add the task that reports how the run ended; it belongs in an exit handler."""
        api = self.settings.api
        return self.task("outcome", {}, **({"api": api} if api else {}))

    def _travels_as_index(self) -> bool:
        """Whether ``fetch`` writes an index; by default where the images lie in an object store, or are uploaded."""
        if self.settings.data != "auto":
            return self.settings.data == "index"
        fetch = self._sections.get("fetch") or {}
        is_archive = self.data_version == NO_VALUE and self.source.lower().endswith(ARCHIVE_SUFFIXES)
        return bool(fetch.get("image_store")) or (self.source.startswith("s3://") and not is_archive)

    def _run_values(self, name: str) -> dict[str, Any]:
        """Values of a step that it gets when the pipeline runs; those of the first run, or of one loop."""
        if name == "fetch":
            version = None if self.data_version == NO_VALUE else self.data_version
            return {"source": self.source, "data_version": version}
        return {"shard": str(WHOLE)} if name.endswith("_shard") else {}

    def _cache_values(self) -> dict[str, Any]:
        """Where a step keeps results and copies of images: on the volume, because a container's disk ends with it."""
        volume = self.settings.cache
        if volume.claim is None:
            return {"cache_gigabytes": 0.0, "image_cache_gigabytes": 0.0}
        return {"cache": volume.path, "image_cache": f"{volume.path}/images"}

    def _is_cached(self, step_class: type[Step], image: str) -> bool:
        """Whether Kubeflow may take the outputs of an earlier run with the same inputs."""
        if step_class.name == "fetch" and self.data_version == NO_VALUE and self.source != "phantom":
            return False  # the images at an address may have changed
        images = [image, self._training_image(step_class)]
        return self.settings.caching and all(map(self.settings.pins_code, images)) and step_class.cacheable

    def _training_image(self, step_class: type[Step]) -> str:
        """Name of the image in which a step computes: its own one, but that of ``train`` for training on nodes."""
        trains = load_step("train") if step_class.name == TRAINING_ON_NODES else step_class
        return str(trains.gpu_image if trains.gpu_image and self.settings.gpu.count else trains.container_image)

    def _with_pod_settings(self, task: PipelineTask, step_class: type[Step], *, is_shard: bool) -> PipelineTask:
        """Give a task its image, resources, secrets and rules."""
        from kfp import kubernetes

        settings, gpu = self.settings, self.settings.gpu
        uses_gpu = step_class.gpu_image is not None and gpu.count > 0
        image = str(step_class.gpu_image if uses_gpu else step_class.container_image)
        if step_class.name == TRAINING_ON_NODES:
            kubernetes.mount_pvc(task, pvc_name=str(settings.nodes.claim), mount_path=CHECKPOINTS_MOUNT)
        task.set_container_image(settings.image_reference(image))
        resources = settings.resources_of(step_class.name)
        task.set_cpu_request(resources.cpu).set_cpu_limit(resources.cpu)
        task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
        kubernetes.set_timeout(task, round(3600 * resources.hours))
        if uses_gpu:
            task.set_accelerator_type(gpu.type).set_accelerator_limit(gpu.count)
            for key, value in gpu.node_selector.items():
                kubernetes.add_node_selector(task, key, value)
            for toleration in gpu.tolerations:
                kubernetes.add_toleration(task, **toleration)
        if step_class.gpu_image is not None and settings.shared_memory:
            kubernetes.empty_dir_mount(
                task, volume_name="shared-memory", mount_path="/dev/shm", medium="Memory",
                size_limit=settings.shared_memory,
            )  # fmt: skip
        retries = settings.retries
        # The record of a run holds every further try, and a shard has one for each of its siblings.
        tries = min(retries.count, 1) if is_shard else retries.count
        if step_class.retryable and tries:
            task.set_retry(tries, f"{retries.seconds}s", retries.factor, f"{retries.longest}s")
        task.set_caching_options(self._is_cached(step_class, image))
        # A namespace with the Pod Security level "restricted" requires these.
        kubernetes.set_security_context(
            task, run_as_user=CONTAINER_USER, run_as_group=CONTAINER_USER, run_as_non_root=True
        )
        kubernetes.set_image_pull_policy(task, settings.pull)
        if settings.secrets.image_pull:
            kubernetes.set_image_pull_secrets(task, [settings.secrets.image_pull])
        reads_store = step_class.reads_object_store or (step_class.reads_images and self.indexes_images)
        if reads_store and settings.secrets.s3:
            kubernetes.use_secret_as_env(task, settings.secrets.s3, {key: key for key in S3_KEYS})
        if issubclass(step_class, TrackingStep) and settings.secrets.mlflow:
            kubernetes.use_secret_as_env(task, settings.secrets.mlflow, {key: key for key in MLFLOW_KEYS})
        kubernetes.use_field_path_as_env(task, provenance.PIPELINE_RUN_VARIABLE, "metadata.labels['pipeline/runid']")
        if issubclass(step_class, CachingStep) and settings.cache.claim:
            kubernetes.mount_pvc(task, pvc_name=settings.cache.claim, mount_path=settings.cache.path)
        if image in settings.digests:
            task.set_env_variable(provenance.IMAGE_DIGEST_VARIABLE, settings.image_reference(image))
        return task


def _recipes_of(sections: Mapping[str, Any], *names: str) -> dict[str, str]:
    """Name of each model in some sections of the parameter file, to its recipe."""
    return {model: str(entry["recipe"]) for name in names for model, entry in (sections.get(name) or {}).items()}


def _compared_classifier(sections: Mapping[str, Any], classifiers: Mapping[str, str]) -> str:
    """Name of the classifier that detectors are compared with."""
    name = (sections.get("evaluate_regions") or {}).get("compare_with")
    if name not in classifiers:
        raise ParameterError(
            [
                f"expected evaluate_regions.compare_with to be one of the classifiers {', '.join(classifiers)}, "
                f"received evaluate_regions.compare_with={name}; name one of them, or set "
                f"{CONTAINERS_SECTION}.regions to false"
            ]
        )
    return str(name)
