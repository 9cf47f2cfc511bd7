"""Candidates for registration: the trained and evaluated models in the folders of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr.errors import MissingInputError, ParameterError, RegistryError
from cxr.files import (
    METADATA_FILE,
    METRICS_FILE,
    NETWORK_FILE,
    PREDICTIONS_FILE,
    REFERENCE_FILE,
    SUMMARY_FILE,
    TRAINING_FILE,
    read_json,
)
from cxr.models.metadata import EVALUATION_FOLDER, MODEL_FOLDER, ModelMetadata, model_folders
from cxr.models.stored_files import check_digest
from cxr.promotion.facts import WORST_SLICE_SENSITIVITY
from cxr.promotion.policy import CommonPolicy
from cxr.regions.files import IMAGES_FILE


@dataclass(frozen=True)
class RunFolders:
    """Folders with the models of a run.

    Attributes:
        models: folder with one folder per trained model.
        evaluations: folder with one folder per evaluation, named as the models.
        splits: folder of the split that they were judged on.
        data: folder of the raw images, for a champion that must predict new ones; None if not at hand.
        ensemble: folder of the ensemble; None, or a folder that does not exist, if there is none.
        transfer: folder with ``models/`` and ``evaluations/`` of the transfer networks; None leaves them out.
        include: names of the models to take; empty takes all that are evaluated, and the ensemble.
        reference: folder of the refusal reference that versions carry; None, or a folder without one, if there is
            none.
        detectors: whether the models draw boxes; each registered model holds one kind only.
    """

    models: Path
    evaluations: Path
    splits: Path
    data: Path | None = None
    ensemble: Path | None = None
    transfer: Path | None = None
    include: Sequence[str] = ()
    reference: Path | None = None
    detectors: bool = False

    @property
    def steps(self) -> tuple[str, str]:
        """Commands that train and evaluate such models."""
        return ("train_regions", "evaluate_regions") if self.detectors else ("train", "evaluate")


@dataclass(frozen=True)
class Candidate:
    """A trained and evaluated model that can become a version.

    Attributes:
        name: name of the model.
        trained: folder of the trained model.
        evaluation: folder of its evaluation.
        metadata: its metadata after evaluation.
        summary: its figures by name.
        reference: folder of the refusal reference; None if there is none.
    """

    name: str
    trained: Path
    evaluation: Path
    metadata: ModelMetadata
    summary: Mapping[str, float]
    reference: Path | None = None

    @property
    def has_slices(self) -> bool:
        """Whether its evaluation measured slices, see :mod:`cxr.evaluation.slices`."""
        return WORST_SLICE_SENSITIVITY in self.summary

    def read_metrics(self) -> dict[str, Any]:
        """Read the figures of its evaluation.

        Returns:
            Content of ``metrics.json``.

        Raises:
            DataError: if the file is damaged.
        """
        path = self.evaluation / METRICS_FILE
        check_digest(path)
        return read_json(path)

    @property
    def files(self) -> Mapping[str, Path]:
        """Files that prediction reads beside the metadata: name inside the version to present path."""
        files = {name: self.trained / name for name in self.metadata.files}
        if self.reference is not None:
            files[REFERENCE_FILE] = self.reference / REFERENCE_FILE
        return files


def find_candidates(run: RunFolders) -> list[Candidate]:
    """Find the models of a run.

    Args:
        run: where the models are.

    Returns:
        The models, all judged on one split, in order of ``run.include`` or of their names.

    Raises:
        MissingInputError: if a model or its evaluation is missing, or there is none.
        DataError: if a file is not as it was written.
        RegistryError: if they were judged on different images or splits, or are of the other kind.
    """
    train, evaluate = run.steps
    folders = model_folders(run.models, run.evaluations, run.transfer)
    if run.ensemble is not None and run.ensemble.is_dir():
        evaluation = run.ensemble / EVALUATION_FOLDER
        folders[ModelMetadata.read(evaluation).model] = (run.ensemble / MODEL_FOLDER, evaluation)
    names = list(run.include) or list(folders)
    selected = {name: folders.get(name, (run.models / name, run.evaluations / name)) for name in names}
    absent = [
        str(path)
        for trained, evaluation in selected.values()
        for path in (
            *(trained / name for name in _model_files(evaluation)),
            evaluation / METADATA_FILE,
            evaluation / SUMMARY_FILE,
        )
        if not path.is_file()
    ]
    if absent or not names:
        raise MissingInputError(
            f"expected trained and evaluated models, received none of: {', '.join(absent) or run.evaluations}; "
            f"run `cxr {train}` and `cxr {evaluate}` for each"
        )
    reference = run.reference if run.reference is not None and (run.reference / REFERENCE_FILE).is_file() else None
    candidates = []
    for name, (trained, evaluation) in selected.items():
        check_digest(evaluation / SUMMARY_FILE)
        summary = read_json(evaluation / SUMMARY_FILE)
        metadata = ModelMetadata.read(evaluation)
        if (metadata.detector is not None) != run.detectors:
            kinds = ("detectors", "classifiers") if run.detectors else ("classifiers", "detectors")
            raise RegistryError(
                f"expected {kinds[0]}, received model={name}, one of the {kinds[1]}; give folders that `cxr {train}` "
                f"and `cxr {evaluate}` wrote"
            )
        if run.detectors and not (evaluation / IMAGES_FILE).is_file():
            raise MissingInputError(
                f"expected what the detector achieves in each image, received no {evaluation / IMAGES_FILE}; run "
                f"`cxr {evaluate}` again"
            )
        if not metadata.evaluated:
            raise MissingInputError(
                f"expected calibrated metadata, received {evaluation / METADATA_FILE} with "
                f"temperature={metadata.temperature}, threshold={metadata.threshold}; run `cxr {evaluate}`"
            )
        candidate = Candidate(name, trained, evaluation, metadata, summary, reference)
        for path in (*candidate.files.values(), trained / TRAINING_FILE, evaluation / PREDICTIONS_FILE):
            check_digest(path)
        candidates.append(candidate)
    if len({(candidate.metadata.data_digest, candidate.metadata.split_digest) for candidate in candidates}) > 1:
        splits = ", ".join(
            f"{candidate.name}={candidate.metadata.split_protocol} {candidate.metadata.split_digest[:8]}"
            for candidate in candidates
        )
        raise RegistryError(
            f"expected models judged on the same images and split, received {splits}; "
            "train and evaluate them again on one split, or name those that belong together (include)"
        )
    return candidates


def check_figures(candidates: Sequence[Candidate], policy: CommonPolicy) -> None:
    """Check that the candidates were measured in everything that a policy limits.

    Args:
        candidates: models of a run.
        policy: the limits.

    Raises:
        ParameterError: if the policy limits the sensitivity of slices, and a model was evaluated without any.
    """
    limit = next((limit for limit in policy.limits if limit.figure == WORST_SLICE_SENSITIVITY), None)
    without = [candidate.name for candidate in candidates if not candidate.has_slices]
    if limit is not None and without:
        raise ParameterError(
            [
                f"expected evaluations with slices, received min_slice_sensitivity={limit.bound:g} and none for "
                f"{', '.join(without)}; name columns in evaluate.slices and run `cxr evaluate` (`cxr ensemble`) again, "
                f"or set {policy.SECTION}.min_slice_sensitivity to null"
            ]
        )


def _model_files(evaluation: Path) -> Sequence[str]:
    """Files of a model beside its metadata; those of a single network if there is no metadata to name members."""
    if (evaluation / METADATA_FILE).is_file():
        return ModelMetadata.read(evaluation).files
    return (NETWORK_FILE,)
