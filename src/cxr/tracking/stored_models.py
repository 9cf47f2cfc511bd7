"""Models in MLflow's store of files, from the first file to the version that stands for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

FINGERPRINT = "fingerprint"
"""Tag of a version and of its MLflow model: digest of the files that they are made of."""


def mark_ready(connected: MlflowClient, model_id: str, run_id: str) -> None:
    """Show an MLflow model as ready and as made by its run; its version is there.

    Args:
        connected: client of the store.
        model_id: MLflow's id of the model.
        run_id: the run that trained it.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    connected.finalize_logged_model(model_id, LoggedModelStatus.READY)
    outputs = connected.get_run(run_id).outputs
    if model_id not in {one.model_id for one in (outputs.model_outputs if outputs else ())}:
        connected.log_outputs(run_id, models=[LoggedModelOutput(model_id, 0)])


def pending(connected: MlflowClient, run_id: str, fingerprint: str) -> list[LoggedModel]:
    """Find MLflow models of the same files that a registration has begun to store.

    Args:
        connected: client of the store.
        run_id: a run of their experiment.
        fingerprint: digest of the files.

    Returns:
        The models; whoever stores them may be at work, or killed.
    """
    from mlflow.entities import LoggedModelStatus

    experiment = connected.get_run(run_id).info.experiment_id
    alike = connected.search_logged_models([experiment], f"tags.{FINGERPRINT} = '{fingerprint}'")
    return [one for one in alike if one.status == LoggedModelStatus.PENDING]


def compare(connected: MlflowClient, model_id: str, saved: Path) -> None:
    """Refuse a stored model that has fewer files, or files of another size, than the folder it was made of.

    Args:
        connected: client of the store.
        model_id: MLflow's id of the model.
        saved: the folder.

    Raises:
        RegistryError: if the store doesn't hold what it was given.
    """
    stored: dict[str, int | None] = {}
    folders: list[str | None] = [None]
    while folders:
        for entry in connected.list_logged_model_artifacts(model_id, folders.pop()):
            if entry.is_dir:
                folders.append(entry.path)
            else:
                stored[entry.path] = entry.file_size
    given = {str(path.relative_to(saved)): path.stat().st_size for path in saved.rglob("*") if path.is_file()}
    # An empty package marker has a size of 0, which some stores do not tell.
    lost = sorted(name for name, size in given.items() if name not in stored or (stored[name] or size) != size)
    if lost:
        raise RegistryError(
            f"expected a store that keeps what it is given, received {model_id} without {', '.join(lost[:5])} "
            f"({len(lost)} of {len(given)} files); look at the store of artifacts, and run `cxr register` again"
        )
