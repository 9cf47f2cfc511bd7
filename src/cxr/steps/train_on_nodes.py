"""Train on nodes: let several nodes of a cluster train one network, and take the result from the volume they share."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, ValidationError, field_validator

from cxr.errors import ParameterError, TrainingError
from cxr.files import whole_folder
from cxr.steps.base import TRAIN_IMAGE, Input, WorkingFolder
from cxr.steps.parameters import argument_text
from cxr.steps.train import Train
from cxr.train_job.api_server import SERVICE_ACCOUNT
from cxr.train_job.manifest import TrainingNodes, train_job

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

MAX_NAME_LENGTH = 30
"""Letters of the model's name in the name of the TrainJob; Kubernetes adds to it and allows 63 in all."""


class TrainOnNodes(Train):
    """Train one network on several nodes of a cluster, by a TrainJob of the Kubeflow Trainer that runs `cxr train`."""

    name: ClassVar[str] = "train_on_nodes"
    follows: ClassVar[str] = "train"
    container_image: ClassVar[str | None] = TRAIN_IMAGE
    gpu_image: ClassVar[str | None] = None  # the task itself only waits

    checkpoints: Annotated[
        Path,
        WorkingFolder("Checkpoints"),
        Field(
            description="Where the volume is mounted that this task and all nodes share; a folder for this training is "
            "made there, and removed when training is done."
        ),
    ]
    nodes: Annotated[
        dict[str, Any],
        Field(
            description="The nodes: count, image, claim, runtime, resources, hours, user; node_selector, tolerations, "
            "shared_memory, secrets and image_pull_secret may be left out."
        ),
    ]
    run_id: Annotated[
        str | None, Field(min_length=1, description="Kubeflow's id of the run; null: the variable CXR_PIPELINE_RUN.")
    ] = None
    service_account: Annotated[
        Path, Field(description="Folder with token, namespace and ca.crt of the pod's service account.")
    ] = SERVICE_ACCOUNT
    interval: Annotated[float, Field(gt=0, le=600, description="Seconds between two looks at the TrainJob.")] = 15.0

    @field_validator("nodes")
    @classmethod
    def _check_nodes(cls, nodes: dict[str, Any]) -> dict[str, Any]:
        try:
            return TrainingNodes.model_validate(nodes).model_dump(mode="json")
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors()]
            raise ValueError(f"what TrainingNodes describes; {'; '.join(problems)}") from None

    @property
    def shared_folder(self) -> Path:
        """Folder of this training on the volume: inputs, checkpoints and the trained network."""
        return self.checkpoints / self.job_name

    @property
    def job_name(self) -> str:
        """Name of the TrainJob: the same in each try of a task, and another in another run or with other values."""
        from cxr.lineage.provenance import PIPELINE_RUN_VARIABLE

        run_id = self.run_id or os.environ.get(PIPELINE_RUN_VARIABLE)
        if not run_id:
            raise ParameterError(
                [
                    f"expected the id of the pipeline's run, received run_id=null and no {PIPELINE_RUN_VARIABLE}; give "
                    "--run_id"
                ]
            )
        values = json.dumps([run_id, self.nodes, self._changed_values()], sort_keys=True)
        model = self.model[:MAX_NAME_LENGTH].replace("_", "-").rstrip("-")
        return f"{model}-{hashlib.sha256(values.encode()).hexdigest()[:10]}"

    def describe_job(self) -> dict[str, Any]:
        """Describe the TrainJob that trains this network."""
        from cxr.lineage.provenance import IMAGE_DIGEST_VARIABLE, PIPELINE_RUN_VARIABLE

        nodes = TrainingNodes.model_validate(self.nodes)
        variables = {"KERAS_BACKEND": "jax"}
        if run_id := self.run_id or os.environ.get(PIPELINE_RUN_VARIABLE):
            variables[PIPELINE_RUN_VARIABLE] = run_id
        if "@" in nodes.image:
            variables[IMAGE_DIGEST_VARIABLE] = nodes.image
        return train_job(self.job_name, nodes, self._command_line(), variables, self.checkpoints)

    def run(self) -> None:
        """Copy the inputs to the volume, let the nodes train, and take the trained network from there."""
        from cxr.train_job.api_server import ApiServer
        from cxr.train_job.following import run_train_job

        server = ApiServer.of_pod(os.environ, self.service_account)
        for field, folder in self._shared_inputs().items():
            if not folder.exists():  # else an earlier try of this task has copied it
                with whole_folder(folder) as partial:
                    shutil.copytree(getattr(self, field), partial, dirs_exist_ok=True)
        run_train_job(server, self.describe_job(), self.interval)
        trained = self.shared_folder / "trained"
        if not trained.is_dir():
            raise TrainingError(
                f"expected TrainJob {self.job_name} to write {trained}, received nothing there; check that the claim "
                f"{self.nodes['claim']} is mounted by this task, too, and can be written by many pods (ReadWriteMany)"
            )
        shutil.copytree(trained, self.trained, dirs_exist_ok=True)

    def clean_up(self) -> None:
        """Remove the folder on the volume: the trained model is in place."""
        shutil.rmtree(self.shared_folder, ignore_errors=True)

    def _shared_inputs(self) -> Mapping[str, Path]:
        """Each input, to its copy on the volume."""
        inputs = [field for field, artifact in self.artifacts().items() if isinstance(artifact, Input)]
        return {field: self.shared_folder / field for field in inputs}

    def _changed_values(self) -> dict[str, Any]:
        """Parameters of the training that differ from their defaults, as plain values."""
        return self.model_dump(mode="json", include=set(Train.parameters()), exclude_defaults=True)

    def _command_line(self) -> list[str]:
        """The command line after ``cxr`` with which each node trains."""
        folders = {
            **self._shared_inputs(),
            "trained": self.shared_folder / "trained",
            "checkpoints": self.shared_folder / "checkpoints",
        }
        values = {**{field: str(folder) for field, folder in folders.items()}, **self._changed_values()}
        return ["train", *(word for field, value in values.items() for word in (f"--{field}", argument_text(value)))]
