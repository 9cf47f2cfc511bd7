"""The weighted ensemble: the sum of the log odds of several models, with weights fitted on validation.

System S3 calls it the final weighted classifier; the road map of system S4 asks for an ensemble. Weights are at least
0 and need not sum to 1, and there is no bias. A member of weight 1 among zeros is that member unchanged, so that the
ensemble never has a higher log loss on validation than its best member.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit

from cxr.data.dataset import PNEUMONIA
from cxr.data.split_table import VALIDATION
from cxr.errors import DataError, MissingInputError
from cxr.evaluation.calibration import (
    MIN_TEMPERATURE,
    apply_temperature,
    check_both_classes,
    log_odds,
    pool_probabilities,
)
from cxr.evaluation.metrics import Floats, auroc
from cxr.evaluation.shortcut_checks import HIDDEN_COLUMN
from cxr.files import CHANGED_PREDICTIONS_FILE, METADATA_FILE, NETWORK_FILE, PREDICTIONS_FILE
from cxr.models.metadata import MEMBERS_FOLDER, NAME_SEPARATOR, Member, ModelMetadata
from cxr.models.stored_files import check_digest, record_digests
from cxr.tables import read_table

ENSEMBLE_NAME, ENSEMBLE_SYSTEM = "weighted", "S3"
"""Name and source system of the ensemble."""

MAX_WEIGHT = 1 / MIN_TEMPERATURE
"""Upper bound of a weight, 20: it corresponds to the lowest temperature. A single calibrated member has weight 1, and
members that agree share it. Only a member with nearly constant probabilities would get much more."""

NEGLIGIBLE = 1e-6
"""Smaller weights become 0. If the log loss (in nats) improves by less, the best member is used alone."""

IMAGE_COLUMNS = ["path", "group", "label", "subtype", "split"]
"""Columns that must be equal in the predictions of all members."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EnsembleMembers:
    """Models evaluated on the same images.

    Attributes:
        metadata: name to calibrated metadata, in order.
        predictions: name to the predictions of its evaluation; all hold the same images in the same order.
        changed_predictions: name to the predictions of its stress test; without the models that had none.
    """

    metadata: dict[str, ModelMetadata]
    predictions: dict[str, pd.DataFrame]
    changed_predictions: dict[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def images(self) -> pd.DataFrame:
        """One row per image: path, patient, group, label, subtype and split, without any predictions."""
        first = next(iter(self.predictions.values()))
        return first.drop(columns=["probability_raw", "probability", HIDDEN_COLUMN], errors="ignore")

    @property
    def probabilities(self) -> Floats:
        """Calibrated probabilities, (members, images)."""
        return np.stack([table["probability"].to_numpy(dtype=np.float64) for table in self.predictions.values()])

    def fit_weights(self) -> dict[str, float]:
        """Fit the weights on the validation images.

        Returns:
            Name to weight.
        """
        is_validation = (self.images["split"] == VALIDATION).to_numpy()
        labels = self.images["label"][is_validation] == PNEUMONIA
        weights = fit_weights(labels, self.probabilities[:, is_validation])
        return dict(zip(self.metadata, weights.tolist(), strict=True))

    def pooled_predictions(self, weights: Mapping[str, float]) -> pd.DataFrame:
        """Predict all images.

        Args:
            weights: name to weight.

        Returns:
            The images with the added column probability_raw, as :func:`cxr.evaluation.evaluate.evaluate` expects them,
            and the predictions with hidden lungs, where all members have them.
        """
        member_weights = [weights[name] for name in self.metadata]
        rows = self.images.assign(probability_raw=pool_probabilities(self.probabilities, member_weights))
        if not all(HIDDEN_COLUMN in table.columns for table in self.predictions.values()):
            return rows
        hidden = [
            apply_temperature(self.predictions[name][HIDDEN_COLUMN], float(metadata.temperature or 1.0))
            for name, metadata in self.metadata.items()
        ]
        return rows.assign(**{HIDDEN_COLUMN: pool_probabilities(np.stack(hidden), member_weights)})

    def pooled_changed_predictions(self, weights: Mapping[str, float]) -> pd.DataFrame | None:
        """Predict the images of the stress test.

        Args:
            weights: name to weight.

        Returns:
            Rows as :func:`cxr.evaluation.stress_test.predict_changed_images` returns them; None, with a warning, if the
            members with a weight were not tested on the same images and changes.
        """
        used = [name for name in self.metadata if weights[name] > 0]
        tables = [self.changed_predictions[name] for name in used if name in self.changed_predictions]
        key = ["change", "path"]
        if len(tables) < len(used) or any(not table[key].equals(tables[0][key]) for table in tables):
            if tables:
                logger.warning(
                    "the ensemble has no stress test, because its members were not tested on the same changed images; "
                    "run `cxr evaluate` for each"
                )
            return None
        calibrated = [
            apply_temperature(table["probability_raw"], float(self.metadata[name].temperature or 1.0))
            for name, table in zip(used, tables, strict=True)
        ]
        pooled = pool_probabilities(np.stack(calibrated), [weights[name] for name in used])
        return tables[0].assign(probability_raw=pooled)

    def best_member(self) -> str:
        """Find the member with the highest AUROC on validation.

        Returns:
            Its name; of several equal ones the first.
        """
        is_validation = (self.images["split"] == VALIDATION).to_numpy()
        labels = self.images["label"][is_validation] == PNEUMONIA
        aurocs = {
            name: float(auroc(labels, table["probability"][is_validation])) for name, table in self.predictions.items()
        }
        return max(aurocs, key=lambda name: aurocs[name])

    def ensemble_metadata(self, weights: Mapping[str, float], provenance: Mapping[str, Any]) -> ModelMetadata:
        """Describe the ensemble.

        Args:
            weights: name to weight.
            provenance: the result of :func:`cxr.lineage.provenance.current_provenance`.

        Returns:
            Its metadata, without calibration.
        """
        members = tuple(Member(name, weights[name], metadata) for name, metadata in self.metadata.items())
        used = [member.card for member in members if member.weight > 0]
        data_md5 = {metadata.data_md5 for metadata in used}
        return ModelMetadata(
            model=ENSEMBLE_NAME,
            system=ENSEMBLE_SYSTEM,
            recipe={"name": _join_names(metadata.recipe.get("name") for metadata in used)},
            input_shape=(),
            parameters=sum(metadata.parameters for metadata in used),
            seed=0,
            dataset=used[0].dataset,
            data_digest=used[0].data_digest,
            split_protocol=used[0].split_protocol,
            split_digest=used[0].split_digest,
            data_md5=data_md5.pop() if len(data_md5) == 1 else None,
            **provenance,
            training=combine_training_facts([metadata.training for metadata in used]),
            members=members,
        )


def read_members(folders: Mapping[str, tuple[Path, Path]], include: Sequence[str]) -> EnsembleMembers:
    """Read the evaluated models of a run.

    Args:
        folders: name to the folder of the trained model and of its evaluation, see
            :func:`cxr.models.metadata.model_folders`.
        include: names of the models to take; empty takes all that are evaluated.

    Returns:
        The members, in order of ``include`` or of their names.

    Raises:
        MissingInputError: if a model or its evaluation is missing, or there is none.
        DataError: see :func:`join_members`.
    """
    names = list(include) or list(folders)
    missing = [name for name in names if name not in folders]
    for trained, evaluated in (folders[name] for name in names if name in folders):
        files = [trained / NETWORK_FILE, trained / METADATA_FILE]
        files += [evaluated / METADATA_FILE, evaluated / PREDICTIONS_FILE]
        missing += [str(path) for path in files if not path.is_file()]
    if missing or not names:
        raise MissingInputError(
            f"expected trained and evaluated models, received none of: {', '.join(missing) or 'any'}; "
            "run `cxr train` and `cxr evaluate` for each, or name others in ensemble.members"
        )
    metadata = {name: ModelMetadata.read(folders[name][1]) for name in names}
    stale = [name for name in names if ModelMetadata.read(folders[name][0]).training != metadata[name].training]
    if stale:
        raise DataError(
            f"expected evaluations of the networks as they are now, received older ones of {', '.join(stale)}; "
            "run `cxr evaluate` for each"
        )
    members = join_members(metadata, {name: read_table(folders[name][1] / PREDICTIONS_FILE) for name in names})
    changed = {name: folders[name][1] / CHANGED_PREDICTIONS_FILE for name in names}
    return replace(
        members, changed_predictions={name: read_table(path) for name, path in changed.items() if path.is_file()}
    )


def join_members(metadata: Mapping[str, ModelMetadata], predictions: Mapping[str, pd.DataFrame]) -> EnsembleMembers:
    """Join models, after checking that they were evaluated on the same images.

    Args:
        metadata: name to calibrated metadata.
        predictions: name to predictions with path, group, label, subtype, split, probability_raw and probability.

    Returns:
        The members.

    Raises:
        DataError: if kind or version of the data, the split or the images differ; all members are named.
    """
    first = next(iter(predictions))
    facts = {
        "kind of data": {name: member.dataset_kind for name, member in metadata.items()},
        "version of the images (data_digest)": {name: member.data_digest[:8] for name, member in metadata.items()},
        "split (split_digest)": {
            name: f"{member.split_protocol} {member.split_digest[:8]}" for name, member in metadata.items()
        },
        "images in one order": {
            name: "the same" if table[IMAGE_COLUMNS].equals(predictions[first][IMAGE_COLUMNS]) else "other"
            for name, table in predictions.items()
        },
    }
    problems = [
        f"expected members with the same {fact}, "
        f"received {', '.join(f'{name}={value}' for name, value in values.items())}"
        for fact, values in facts.items()
        if len(set(values.values())) > 1
    ]
    if ENSEMBLE_NAME in metadata:
        problems.append(
            f"expected another name than the ensemble's own, received a member {ENSEMBLE_NAME}; rename that model"
        )
    if problems:
        raise DataError(
            "\n".join(problems)
            + "\ntrain and evaluate them again on one split, or name those that belong together in ensemble.members"
        )
    return EnsembleMembers(dict(metadata), dict(predictions))


def fit_weights(labels: ArrayLike, probabilities: ArrayLike) -> Floats:
    """Find the weights with the smallest log loss. Pass validation images only, never test images.

    The loss is convex. The search starts with the best member alone, so the result is the same each time. If the
    members together separate validation perfectly, the loss falls without end as weights grow. The weights then keep
    their proportions and sum to 1, or the best member is used alone if that is better.

    Args:
        labels: (images,), 0 or 1, both present.
        probabilities: (members, images), calibrated, in [0, 1]; kept 1e-7 away from 0 and 1.

    Returns:
        (members,), at least 0 and at most 20, one of them above 0; weights below 1e-6 are 0.

    Raises:
        DataError: if one of the classes is missing.
    """
    from scipy.optimize import minimize

    truth = check_both_classes(labels)
    # Log odds of the correct class: positive where a member is right.
    evidence = np.where(truth == 1, 1.0, -1.0) * log_odds(probabilities)
    single_members = np.eye(len(evidence))

    def loss(weights: Floats) -> tuple[float, Floats]:
        margins = weights @ evidence
        return float(np.logaddexp(0, -margins).mean()), -(evidence * expit(-margins)).mean(axis=1)

    best_alone: Floats = single_members[int(np.argmin([loss(weights)[0] for weights in single_members]))]
    minimum = minimize(
        loss, best_alone, jac=True, method="L-BFGS-B", bounds=[(0, MAX_WEIGHT)] * len(evidence),
        options={"ftol": 1e-14, "gtol": 1e-9, "maxiter": 10_000, "maxfun": 100_000},
    ).x  # fmt: skip
    weights: Floats = np.where(minimum < NEGLIGIBLE, 0.0, minimum)
    if weights.any() and (weights @ evidence).min() >= 0:
        logger.warning("the ensemble separates validation perfectly: its weights are scaled to sum to 1")
        weights = weights / weights.sum()
    if not weights.any() or loss(best_alone)[0] - loss(weights)[0] < NEGLIGIBLE:
        logger.warning("pooling is no better on validation than the best member, which is used alone")
        return best_alone
    return weights


def combine_training_facts(trainings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Combine the training facts of the members that have a weight.

    Args:
        trainings: their training facts, as their metadata holds them.

    Returns:
        ``device``, of kind ``"gpu"`` only if all were trained on one, with all names, and the total ``seconds``;
        None where a member does not state them.
    """
    devices = [dict(training.get("device") or {}) for training in trainings]
    seconds = [training.get("seconds") for training in trainings]
    return {
        "device": {
            "kind": "gpu" if all(device.get("kind") == "gpu" for device in devices) else "cpu",
            **{key: _join_names(device.get(key) for device in devices) for key in ("name", "framework", "driver")},
        },
        "seconds": None if None in seconds else round(sum(value for value in seconds if value is not None), 1),
    }


def write_ensemble(folder: Path, metadata: ModelMetadata, folders: Mapping[str, tuple[Path, Path]]) -> None:
    """Write everything that prediction depends on: the metadata, and network and metadata of each weighted member.

    Args:
        folder: where to write; created if it does not exist.
        metadata: calibrated metadata of the ensemble.
        folders: name to the folder of the trained model and of its evaluation.
    """
    for member in metadata.weighted_members:
        member_folder = folder / MEMBERS_FOLDER / member.model
        member_folder.mkdir(parents=True)
        network = folders[member.model][0] / NETWORK_FILE
        check_digest(network)
        shutil.copyfile(network, member_folder / NETWORK_FILE)
        member.card.write(member_folder)
        record_digests(member_folder)
    metadata.write(folder)
    record_digests(folder)


def _join_names(names: Iterable[str | None]) -> str | None:
    """Distinct names in order of appearance, or None without any."""
    return NAME_SEPARATOR.join(dict.fromkeys(name for name in names if name)) or None
