"""The card that travels with a network's weights: everything else that a prediction depends on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from cxr.data.dataset import CLASSES
from cxr.errors import MissingInputError
from cxr.files import METADATA_FILE, NETWORK_FILE, write_text

MODEL_FOLDER, EVALUATION_FOLDER = "model", "evaluation"
"""Folders of an ensemble: what prediction needs, and how it was judged."""

MEMBERS = "members"
"""Folder inside an ensemble's model folder, with one model's folder per member that has a weight."""


@dataclass(frozen=True)
class Member:
    """A model inside an ensemble.

    Attributes:
        model: name of the model.
        weight: factor of its log odds, at least 0; a member of weight 0 is listed and never loaded.
        card: its calibrated card.
    """

    model: str
    weight: float
    card: ModelCard


@dataclass(frozen=True)
class ModelCard:
    """What a trained network is, kept as ``card.json`` beside ``model.keras``; or what an ensemble is.

    Training writes it without calibration; evaluation completes it with :meth:`completed`. An ensemble has no
    network, recipe or input of its own: its members have.

    Attributes:
        model: the model's name in ``params.yaml``.
        system: source system whose network this is, e.g. ``"S2"``.
        recipe: the image recipe as a dict, as :meth:`cxr.images.recipes.Recipe.to_dict` gives it; of an ensemble
            only ``name``, the members' recipes.
        input_shape: shape of one network input, ``(height, width, channels)``; empty for an ensemble.
        parameters: number of weights.
        seed: seed of the training run; 0 for an ensemble, whose weights are fitted without chance.
        dataset: ``{"name": ..., "kind": "phantom" | "patients", "source": ..., "licence": ...}``, as in the data
            folder's card; older cards lack the last two.
        data_digest: content version of the images (manifest digest).
        split_protocol: how the images were split, e.g. ``"patients-70-15-15"`` or ``"official"``.
        split_digest: digest of the assignment image -> split.
        data_md5: DVC's hash of the data folder; None where DVC doesn't track it.
        git_commit: commit of the code, with ``-dirty`` when files differed; None outside a checkout.
        environment: pinned requirement file with its digest, see :func:`cxr.lineage.provenance.environment`; None if
            unknown, as in older cards.
        pipeline_run: run of the pipeline; None for a step run by hand or by DVC.
        image_digest: container image that the step ran in; None outside of one.
        training: evidence of the training run: device, framework, driver, seconds, epochs ...
        classes: class names; the index is the training target.
        temperature: calibration temperature T of ``sigmoid(logit(p) / T)``; None before evaluation.
        threshold: calibrated probability at and above which an image is called PNEUMONIA; None before
            evaluation.
        threshold_rule: words for how the threshold was chosen; None before evaluation.
        members: models that an ensemble pools, those of weight 0 too; empty for a single network.
    """

    model: str
    system: str
    recipe: dict[str, Any]
    input_shape: tuple[int, ...]
    parameters: int
    seed: int
    dataset: dict[str, str]
    data_digest: str
    split_protocol: str
    split_digest: str
    data_md5: str | None = None
    git_commit: str | None = None
    environment: str | None = None
    pipeline_run: str | None = None
    image_digest: str | None = None
    training: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = CLASSES
    temperature: float | None = None
    threshold: float | None = None
    threshold_rule: str | None = None
    members: tuple[Member, ...] = ()

    @property
    def dataset_kind(self) -> str:
        """``"phantom"`` for drawn images, ``"patients"`` for radiographs of people."""
        return self.dataset["kind"]

    @property
    def calibrated(self) -> bool:
        """Whether evaluation has added temperature and threshold."""
        return self.temperature is not None and self.threshold is not None

    @property
    def pooled(self) -> tuple[Member, ...]:
        """Members that have a weight, in order."""
        return tuple(member for member in self.members if member.weight > 0)

    @property
    def files(self) -> tuple[str, ...]:
        """Files that prediction reads beside this card, relative to its folder."""
        if not self.members:
            return (NETWORK_FILE,)
        return tuple(
            f"{MEMBERS}/{member.model}/{name}" for member in self.pooled for name in (NETWORK_FILE, METADATA_FILE)
        )

    def completed(self, temperature: float, threshold: float, rule: str) -> ModelCard:
        """Add what evaluation chose on the validation images.

        Args:
            temperature: calibration temperature, above 0.
            threshold: operating point on the calibrated probability, 0 to 1.
            rule: words for how the threshold was chosen.

        Returns:
            A new card; this one stays as it is.

        Raises:
            ValueError: if temperature or threshold is out of bounds or not finite.
        """
        if not 0 < temperature < float("inf"):
            raise ValueError(f"expected a temperature above 0, received temperature={temperature!r}")
        if not 0 <= threshold <= 1:
            raise ValueError(f"expected a threshold from 0 to 1, received threshold={threshold!r}")
        return replace(self, temperature=float(temperature), threshold=float(threshold), threshold_rule=rule)

    def write(self, folder: Path) -> Path:
        """Write ``card.json`` so that a reader sees the old card or the new one, never a part.

        Args:
            folder: the model's folder, which must exist.

        Returns:
            The file written.
        """
        path = folder / METADATA_FILE
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")
        return path

    @classmethod
    def read(cls, folder: Path) -> ModelCard:
        """Read the card of a model's folder.

        Args:
            folder: folder that holds ``card.json``.

        Returns:
            The card.

        Raises:
            MissingInputError: if there is no card, or it isn't one of this version.
        """
        path = folder / METADATA_FILE
        try:
            return cls._of(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise MissingInputError(
                f"expected a model card with the fields of ModelCard, received {path}={error!r}; "
                "run `cxr train`, and `cxr evaluate` for the calibrated card"
            ) from error

    @classmethod
    def _of(cls, values: dict[str, Any]) -> ModelCard:
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown fields {', '.join(unknown)}")
        members = tuple(Member(one["model"], one["weight"], cls._of(one["card"])) for one in values.get("members", ()))
        shape, classes = tuple(values["input_shape"]), tuple(values["classes"])
        return cls(**{**values, "classes": classes, "input_shape": shape, "members": members})


def model_folders(models: Path, evaluations: Path, transfer: Path | None = None) -> dict[str, tuple[Path, Path]]:
    """Find the evaluated models of a run.

    Args:
        models: folder with one folder per trained model.
        evaluations: folder with one folder per evaluation, named as the models.
        transfer: folder with ``models/`` and ``evaluations/`` of the transfer networks; None leaves them out.

    Returns:
        Name to the folder of the trained model and of its evaluation, by name, transfer networks last.
    """
    pairs = [(models, evaluations)]
    if transfer is not None:
        pairs.append((transfer / "models", transfer / "evaluations"))
    return {
        path.parent.name: (trained / path.parent.name, path.parent)
        for trained, judged in pairs
        for path in sorted(judged.glob(f"[!.]*/{METADATA_FILE}"))
    }
