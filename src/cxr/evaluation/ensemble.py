"""The weighted classifier: the log odds of several models, added up with weights that validation chooses.

System S3 calls it the final weighted classifier; system S4's road map asks for an ensemble. Weights are not
negative and need not sum to 1, there is no bias: a member of weight 1 among zeros is that member as it is, so
that the pool never has a higher log loss on validation than its best member.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit

from cxr.data.dataset import PNEUMONIA
from cxr.errors import DataError, MissingInputError
from cxr.evaluation.calibration import COLDEST, apply_temperature, log_odds, pool
from cxr.evaluation.evaluate import VALIDATION
from cxr.evaluation.metrics import Floats, auroc
from cxr.evaluation.shortcut_checks import HIDDEN_COLUMN
from cxr.files import METADATA_FILE, NETWORK_FILE, PREDICTIONS_FILE
from cxr.models.metadata import MEMBERS, Member, ModelCard

NAME, SYSTEM = "weighted", "S3"
"""Name and source system of the ensemble."""


HEAVIEST = 1 / COLDEST
"""Bound of the search, 20: as far as a temperature would go. A calibrated member alone has weight 1 and members that
agree share it; much more goes only to one that says nearly the same of every image."""

NEGLIGIBLE = 1e-6
"""Weights below are 0; a gain in log loss below (in nats) is none, and the best member stays alone."""

IMAGES = ["path", "group", "label", "subtype", "split"]
"""Columns that must be equal in the predictions of all members."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Members:
    """Models judged on the same images.

    Attributes:
        cards: name to calibrated card, in order.
        tables: name to the predictions of its evaluation; all hold the same images in the same order.
    """

    cards: dict[str, ModelCard]
    tables: dict[str, pd.DataFrame]

    @property
    def rows(self) -> pd.DataFrame:
        """The images: path, patient, group, label, subtype and split, without any member's answers."""
        first = next(iter(self.tables.values()))
        return first.drop(columns=["probability_raw", "probability", HIDDEN_COLUMN], errors="ignore")

    @property
    def probabilities(self) -> Floats:
        """Calibrated probabilities, (members, images)."""
        return np.stack([table["probability"].to_numpy(dtype=np.float64) for table in self.tables.values()])

    def fit(self) -> dict[str, float]:
        """Fit the weights on the validation images.

        Returns:
            Name to weight.
        """
        part = (self.rows["split"] == VALIDATION).to_numpy()
        weights = fit_weights(self.rows["label"][part] == PNEUMONIA, self.probabilities[:, part])
        return dict(zip(self.cards, weights.tolist(), strict=True))

    def pooled(self, weights: Mapping[str, float]) -> pd.DataFrame:
        """Answer for all images.

        Args:
            weights: name to weight.

        Returns:
            The rows with the added column probability_raw, as :func:`cxr.evaluation.evaluate.evaluate` takes them, and
            the answers for hidden lungs, where all members have them.
        """
        factors = [weights[name] for name in self.cards]
        rows = self.rows.assign(probability_raw=pool(self.probabilities, factors))
        if not all(HIDDEN_COLUMN in table.columns for table in self.tables.values()):
            return rows
        hidden = [
            apply_temperature(self.tables[name][HIDDEN_COLUMN], float(card.temperature or 1.0))
            for name, card in self.cards.items()
        ]
        return rows.assign(**{HIDDEN_COLUMN: pool(np.stack(hidden), factors)})

    def best(self) -> str:
        """Find the best member.

        Returns:
            The name with the highest AUROC on validation, the first of equals.
        """
        part = (self.rows["split"] == VALIDATION).to_numpy()
        sick = self.rows["label"][part] == PNEUMONIA
        scores = {name: float(auroc(sick, table["probability"][part])) for name, table in self.tables.items()}
        return max(scores, key=lambda name: scores[name])

    def card(self, weights: Mapping[str, float], origin: Mapping[str, Any]) -> ModelCard:
        """Describe the ensemble.

        Args:
            weights: name to weight.
            origin: what :func:`cxr.lineage.provenance.origin` gives, each None where unknown.

        Returns:
            Its card, without calibration.
        """
        members = tuple(Member(name, weights[name], card) for name, card in self.cards.items())
        used = [member.card for member in members if member.weight > 0]
        data_md5 = {card.data_md5 for card in used}
        return ModelCard(
            model=NAME,
            system=SYSTEM,
            recipe={"name": _joined(card.recipe.get("name") for card in used)},
            input_shape=(),
            parameters=sum(card.parameters for card in used),
            seed=0,
            dataset=used[0].dataset,
            data_digest=used[0].data_digest,
            split_protocol=used[0].split_protocol,
            split_digest=used[0].split_digest,
            data_md5=data_md5.pop() if len(data_md5) == 1 else None,
            **origin,
            training=evidence([card.training for card in used]),
            members=members,
        )


def read_members(folders: Mapping[str, tuple[Path, Path]], include: Sequence[str] = ()) -> Members:
    """Read the evaluated models of a run.

    Args:
        folders: name to the folder of the trained model and of its evaluation, see
            :func:`cxr.models.metadata.model_folders`.
        include: names of the models to take; empty takes all that are evaluated.

    Returns:
        The members, in order of ``include`` or of their names.

    Raises:
        MissingInputError: if a model or its evaluation is missing, or there is none.
        DataError: see :func:`join`.
    """
    names = list(include) or list(folders)
    absent = [name for name in names if name not in folders]
    for trained, judged in (folders[name] for name in names if name in folders):
        wanted = [trained / NETWORK_FILE, trained / METADATA_FILE, judged / METADATA_FILE, judged / PREDICTIONS_FILE]
        absent += [str(path) for path in wanted if not path.is_file()]
    if absent or not names:
        raise MissingInputError(
            f"expected trained and evaluated models, received none of: {', '.join(absent) or 'any'}; "
            "run `cxr train` and `cxr evaluate` for each, or name others in ensemble.members"
        )
    cards = {name: ModelCard.read(folders[name][1]) for name in names}
    stale = [name for name in names if ModelCard.read(folders[name][0]).training != cards[name].training]
    if stale:
        raise DataError(
            f"expected evaluations of the networks as they are now, received older ones of {', '.join(stale)}; "
            "run `cxr evaluate` for each"
        )
    return join(cards, {name: pd.read_parquet(folders[name][1] / PREDICTIONS_FILE) for name in names})


def join(cards: Mapping[str, ModelCard], tables: Mapping[str, pd.DataFrame]) -> Members:
    """Put models side by side, once it is sure that they were judged on the very same images.

    Args:
        cards: name to calibrated card.
        tables: name to predictions with path, group, label, subtype, split, probability_raw and probability.

    Returns:
        The members.

    Raises:
        DataError: if kind or version of the data, the split or the images differ; all members are named.
    """
    first = next(iter(tables))
    facts = {
        "kind of data": {name: card.dataset_kind for name, card in cards.items()},
        "version of the images (data_digest)": {name: card.data_digest[:8] for name, card in cards.items()},
        "split (split_digest)": {
            name: f"{card.split_protocol} {card.split_digest[:8]}" for name, card in cards.items()
        },
        "images in one order": {
            name: "the same" if tables[name][IMAGES].equals(tables[first][IMAGES]) else "other" for name in tables
        },
    }
    problems = [
        f"expected members with the same {what}, received {', '.join(f'{name}={value}' for name, value in of.items())}"
        for what, of in facts.items()
        if len(set(of.values())) > 1
    ]
    if NAME in cards:
        problems.append(f"expected another name than the ensemble's own, received a member {NAME}; rename that model")
    if problems:
        raise DataError(
            "\n".join(problems)
            + "\ntrain and evaluate them again on one split, or name those that belong together in ensemble.members"
        )
    return Members(dict(cards), dict(tables))


def fit_weights(target: ArrayLike, probabilities: ArrayLike) -> Floats:
    """Find the weights with the smallest log loss. Give it validation images only, never test images.

    The loss is convex; the search starts at the best member alone, so the result is the same each time. Where
    the members together separate validation perfectly, the loss falls for ever as weights grow: they then keep
    their proportions and sum to 1, or the best member stands alone if that is better.

    Args:
        target: (images,), 0 or 1, both present.
        probabilities: (members, images), calibrated, in [0, 1]; kept 1e-7 away from 0 and 1.

    Returns:
        (members,), at least 0 and at most 20, one of them above 0; weights below 1e-6 are 0.

    Raises:
        DataError: if one of the classes is missing.
    """
    sick = np.asarray(target, dtype=np.int64)
    if sick.size == 0 or sick.min() == sick.max():
        raise DataError(
            "expected validation images of both classes, "
            f"received images={sick.size}, pneumonia={int(sick.sum())}; "
            "choose a split with a larger validation share"
        )
    towards = np.where(sick == 1, 1.0, -1.0) * log_odds(probabilities)
    members = np.eye(len(towards))

    def loss(weights: Floats) -> tuple[float, Floats]:
        margins = weights @ towards
        return float(np.logaddexp(0, -margins).mean()), -(towards * expit(-margins)).mean(axis=1)

    alone: Floats = members[int(np.argmin([loss(member)[0] for member in members]))]
    found = minimize(
        loss, alone, jac=True, method="L-BFGS-B", bounds=[(0, HEAVIEST)] * len(members),
        options={"ftol": 1e-14, "gtol": 1e-9, "maxiter": 10_000, "maxfun": 100_000},
    ).x  # fmt: skip
    weights: Floats = np.where(found < NEGLIGIBLE, 0.0, found)
    if weights.any() and (weights @ towards).min() >= 0:
        logger.warning("the ensemble separates validation perfectly: its weights are scaled to sum to 1")
        weights = weights / weights.sum()
    if not weights.any() or loss(alone)[0] - loss(weights)[0] < NEGLIGIBLE:
        logger.warning("pooling is no better on validation than the best member, which stays alone")
        return alone
    return weights


def evidence(trainings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum up the training of the members that are used.

    Args:
        trainings: their evidence, as their cards hold it.

    Returns:
        ``device``, of kind ``"gpu"`` only if all were trained on one, with all names, and ``seconds`` in all;
        None where a member doesn't say it.
    """
    devices = [dict(training.get("device") or {}) for training in trainings]
    seconds = [training.get("seconds") for training in trainings]
    return {
        "device": {
            "kind": "gpu" if all(device.get("kind") == "gpu" for device in devices) else "cpu",
            **{key: _joined(device.get(key) for device in devices) for key in ("name", "framework", "driver")},
        },
        "seconds": None if None in seconds else round(sum(one for one in seconds if one is not None), 1),
    }


def write_model(folder: Path, card: ModelCard, folders: Mapping[str, tuple[Path, Path]]) -> None:
    """Gather everything that prediction depends on: the card, and network and card of each member with a weight.

    Args:
        folder: where to write; made if it is not there.
        card: the ensemble's calibrated card.
        folders: name to the folder of the trained model and of its evaluation.
    """
    for member in card.pooled:
        place = folder / MEMBERS / member.model
        place.mkdir(parents=True)
        shutil.copyfile(folders[member.model][0] / NETWORK_FILE, place / NETWORK_FILE)
        member.card.write(place)
    card.write(folder)


def _joined(names: Iterable[str | None]) -> str | None:
    """Different names in order of appearance, or None without any."""
    return " + ".join(dict.fromkeys(name for name in names if name)) or None
