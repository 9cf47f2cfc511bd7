"""The metadata that travels with a network's weights: everything else that a prediction depends on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from cxr.data.dataset import CLASSES
from cxr.errors import MissingInputError
from cxr.files import METADATA_FILE, NETWORK_FILE, write_text
from cxr.models.prediction_sets import PredictionSets
from cxr.models.stored_files import check_digest

NAME_SEPARATOR = " + "
"""Between the names of several devices, where the members of an ensemble were trained on different ones."""

MODEL_FOLDER, EVALUATION_FOLDER = "model", "evaluation"
"""Folders of an ensemble: what prediction needs, and its evaluation."""

MEMBERS_FOLDER = "members"
"""Folder inside an ensemble's model folder, with one model's folder for each member whose weight is above 0."""


@dataclass(frozen=True)
class Member:
    """A model inside an ensemble.

    Attributes:
        model: name of the model.
        weight: factor of its log odds, at least 0. A member of weight 0 is listed but never loaded.
        card: its calibrated metadata.
    """

    model: str
    weight: float
    card: ModelMetadata


@dataclass(frozen=True)
class DetectorMetadata:
    """What a network that draws boxes needs besides, to turn its outputs into boxes.

    Attributes:
        backbone: network whose feature maps it uses.
        squeeze_excitation: whether these have squeeze-and-excitation blocks.
        anchors: version of the anchors, see :func:`cxr.regions.predictor.anchors_version`.
        min_score: lowest score of a box that the detector proposes, 0 to 1.
        max_overlap: intersection over union above which two boxes are taken for the same opacity, 0 to 1.
        max_boxes: largest number of boxes of an image.
        box_scale: factor of the width and height of a box, chosen on validation; None before evaluation.
    """

    backbone: str
    squeeze_excitation: bool
    anchors: str
    min_score: float
    max_overlap: float
    max_boxes: int
    box_scale: float | None = None


@dataclass(frozen=True)
class ModelMetadata:
    """What a trained classifier, an ensemble or a detector is, kept as ``card.json`` beside the weights.

    Training writes it without calibration; evaluation adds it with :meth:`with_calibration`, or, for a detector, with
    :meth:`with_box_choice`. An ensemble has no network, recipe or input of its own; its members have.

    Attributes:
        model: the model's name in ``params.yaml``.
        system: source system of the network, e.g. ``"S2"``.
        recipe: the image recipe as :meth:`cxr.images.recipes.Recipe.to_dict` gives it; of an ensemble only ``name``,
            which joins the recipes of the members.
        input_shape: shape of one network input, ``(height, width, channels)``; empty for an ensemble.
        parameters: number of weights.
        seed: seed of the training run; 0 for an ensemble, whose weights are fitted without random numbers.
        dataset: ``{"name": ..., "kind": "phantom" | "patients", "source": ..., "licence": ...}``, as in the metadata
            of the data folder; older files lack the last two.
        data_digest: content version of the images (digest of the manifest).
        split_protocol: how the images were split, e.g. ``"patients-70-15-15"`` or ``"official"``.
        split_digest: digest of the assignment image -> split.
        data_md5: DVC's hash of the data folder; None where DVC does not track it.
        git_commit: commit of the code, with ``-dirty`` when files differed; None outside a checkout.
        environment: pinned requirement file with its digest, see
            :func:`cxr.lineage.provenance.describe_environment`; None if unknown, as in older files.
        pipeline_run: run of the pipeline; None for a step run by hand or by DVC.
        image_digest: container image that the step ran in; None outside a container.
        mirrored: whether a raw probability is the mean of the image and its mirror image, in log odds; older files lack
            it, and an ensemble's members have their own.
        training: facts about the training run: device, framework, driver, seconds, epochs ...
        classes: class names; the index is the training label.
        temperature: calibration temperature T of ``sigmoid(logit(p) / T)``; None before evaluation.
        threshold: calibrated probability at and above which an image is called PNEUMONIA; of a detector the score at
            and above which a box counts; None before evaluation.
        threshold_rule: sentence on how the threshold was chosen; None before evaluation.
        members: models of an ensemble, those of weight 0 too; empty for a single network.
        detector: what a detector needs besides; None for a classifier or an ensemble. A detector has no temperature.
        prediction_sets: when a label is UNCERTAIN; None if the label is the comparison with the threshold.
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
    mirrored: bool = False
    training: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = CLASSES
    temperature: float | None = None
    threshold: float | None = None
    threshold_rule: str | None = None
    members: tuple[Member, ...] = ()
    detector: DetectorMetadata | None = None
    prediction_sets: PredictionSets | None = None

    @property
    def dataset_kind(self) -> str:
        """``"phantom"`` for drawn images, ``"patients"`` for radiographs of people."""
        return self.dataset["kind"]

    @property
    def calibrated(self) -> bool:
        """Whether evaluation has added temperature and threshold."""
        return self.temperature is not None and self.threshold is not None

    @property
    def evaluated(self) -> bool:
        """Whether evaluation has added what prediction needs: the calibration, or the choice of boxes of a detector."""
        if self.detector is not None:
            return self.threshold is not None and self.detector.box_scale is not None
        return self.calibrated

    @property
    def weighted_members(self) -> tuple[Member, ...]:
        """Members whose weight is above 0, in order."""
        return tuple(member for member in self.members if member.weight > 0)

    @property
    def files(self) -> tuple[str, ...]:
        """Files that prediction reads beside ``card.json``, relative to its folder."""
        if not self.members:
            return (NETWORK_FILE,)
        return tuple(
            f"{MEMBERS_FOLDER}/{member.model}/{name}"
            for member in self.weighted_members
            for name in (NETWORK_FILE, METADATA_FILE)
        )

    def with_calibration(self, temperature: float, threshold: float, rule: str) -> ModelMetadata:
        """Add the temperature and the threshold that evaluation chose on the validation images.

        Args:
            temperature: calibration temperature, above 0.
            threshold: operating point on the calibrated probability, 0 to 1.
            rule: sentence on how the threshold was chosen.

        Returns:
            New metadata; this object stays as it is. Prediction sets are left out: they belong to one temperature.

        Raises:
            ValueError: if temperature or threshold is out of bounds or not finite.
        """
        if not 0 < temperature < float("inf"):
            raise ValueError(f"expected a temperature above 0, received temperature={temperature!r}")
        if not 0 <= threshold <= 1:
            raise ValueError(f"expected a threshold from 0 to 1, received threshold={threshold!r}")
        return replace(
            self,
            temperature=float(temperature),
            threshold=float(threshold),
            threshold_rule=rule,
            prediction_sets=None,
        )

    def with_box_choice(self, threshold: float, box_scale: float, rule: str) -> ModelMetadata:
        """Add the threshold and the box scale that evaluation chose on the validation images for a detector.

        Args:
            threshold: score at and above which a box counts, 0 to 1.
            box_scale: factor of the width and height of a box, above 0.
            rule: sentence on how both were chosen.

        Returns:
            New metadata; this object stays as it is.

        Raises:
            ValueError: if this is no detector, or a value is out of bounds.
        """
        if self.detector is None:
            raise ValueError(f"expected the metadata of a detector, received model={self.model!r}")
        if not 0 <= threshold <= 1 or not 0 < box_scale < float("inf"):
            raise ValueError(
                f"expected a threshold from 0 to 1 and a scale above 0, received {threshold=!r}, {box_scale=!r}"
            )
        detector = replace(self.detector, box_scale=float(box_scale))
        return replace(self, detector=detector, threshold=float(threshold), threshold_rule=rule)

    def to_dict(self) -> dict[str, Any]:
        """Convert the metadata to plain values, for JSON.

        Returns:
            Field name to value. Without ``detector`` and ``prediction_sets`` where there are none: such files stay
            those that they were before these existed.
        """
        values = asdict(self)
        for card in (values, *(member["card"] for member in values["members"])):
            for name in ("detector", "prediction_sets"):
                if card[name] is None:
                    del card[name]
        return values

    def write(self, folder: Path) -> Path:
        """Write ``card.json``, whole or not at all.

        Args:
            folder: the model's folder, which must exist.

        Returns:
            The written file.
        """
        path = folder / METADATA_FILE
        write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")
        return path

    @classmethod
    def read(cls, folder: Path) -> ModelMetadata:
        """Read the metadata of a model's folder.

        Args:
            folder: folder that holds ``card.json``.

        Returns:
            The metadata.

        Raises:
            MissingInputError: if the file is missing, or has other fields than this version of the program expects.
            DataError: if the file is not as it was written.
        """
        path = folder / METADATA_FILE
        check_digest(path)
        try:
            return cls._from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise MissingInputError(
                f"expected model metadata with the fields of ModelMetadata, received {path}={error!r}; "
                "run `cxr train`, and `cxr evaluate` for the calibration"
            ) from error

    @classmethod
    def _from_dict(cls, values: dict[str, Any]) -> ModelMetadata:
        known = {attribute.name for attribute in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown fields {', '.join(unknown)}")
        members = tuple(
            Member(member["model"], member["weight"], cls._from_dict(member["card"]))
            for member in values.get("members", ())
        )
        shape, classes = tuple(values["input_shape"]), tuple(values["classes"])
        detector = DetectorMetadata(**values["detector"]) if values.get("detector") else None
        sets = PredictionSets(**values["prediction_sets"]) if values.get("prediction_sets") else None
        return cls(
            **{
                **values,
                "classes": classes,
                "input_shape": shape,
                "members": members,
                "detector": detector,
                "prediction_sets": sets,
            }
        )


def model_folders(models: Path, evaluations: Path, transfer: Path | None = None) -> dict[str, tuple[Path, Path]]:
    """Find the evaluated models of a run.

    Args:
        models: folder with one folder per trained model.
        evaluations: folder with one folder per evaluation, named as the models.
        transfer: folder with ``models/`` and ``evaluations/`` of the transfer networks; None leaves them out.

    Returns:
        Name to the folder of the trained model and of its evaluation, by name, transfer networks last.
    """
    folders = [(models, evaluations)]
    if transfer is not None:
        folders.append((transfer / "models", transfer / "evaluations"))
    return {
        path.parent.name: (trained / path.parent.name, path.parent)
        for trained, evaluated in folders
        for path in sorted(evaluated.glob(f"[!.]*/{METADATA_FILE}"))
    }
