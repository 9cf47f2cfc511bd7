"""Fitting the reference on training films, and measuring on others how often it errs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.data.statistics import wilson
from cxr.errors import DataError
from cxr.images.decoding import Picture
from cxr.inference.reference.features import STATISTICS, Vector, outline, statistics
from cxr.inference.reference.reference import POSES, Reference, posed

FOLDS = 5
QUIETEST = 1e-6
"""Variance that is taken along directions in which no two films differ."""
FEWEST = 20
"""Training films without which no limit can be told."""


@dataclass(frozen=True)
class Described:
    """A training film: its statistics, and its outline in each pose.

    Attributes:
        statistics: ``(s,)`` float32.
        outlines: ``(poses, d)`` float32, in order of :data:`cxr.inference.reference.reference.POSES`.
    """

    statistics: Vector
    outlines: Vector


def described(picture: Picture) -> Described:
    """Describe a training film.

    Args:
        picture: the film, upright.

    Returns:
        What the fit needs of it.
    """
    values = statistics(picture.grey)
    return Described(
        np.array([values[name] for name in STATISTICS], dtype=np.float32),
        np.stack([outline(posed(picture.grey, pose)) for pose in POSES]),
    )


def fit(
    films: Sequence[Described],
    groups: Sequence[str],
    *,
    dataset_kind: str,
    components: int = 64,
    false_alarms: float = 0.003,
    max_coloured: float = 0.02,
) -> Reference:
    """Fit the cloud of training films and its limits.

    The limits are those that a share of ``false_alarms`` of the films lies beyond when the cloud is fitted without
    them and without other films of their patients (five folds). A cloud fitted with them would be too close.

    Args:
        films: training films.
        groups: patient of each film.
        dataset_kind: ``"phantom"`` or ``"patients"``.
        components: most main directions; at most a quarter of the films.
        false_alarms: share of films of the same kind that may be refused, above 0.
        max_coloured: largest share of coloured pixels of a film, 0 to 1.

    Returns:
        The reference, without facts.

    Raises:
        DataError: if there are too few films.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold

    if len(films) < FEWEST or len(set(groups)) < FOLDS:
        raise DataError(
            f"expected at least {FEWEST} training films of {FOLDS} patients, received films={len(films)}, "
            f"patients={len(set(groups))}; take more images, or leave the reference out"
        )
    shown = np.stack([film.outlines for film in films])
    upright = shown[:, 0]
    count = min(components, len(films) // 4)
    far = np.empty((len(films), 2))
    for rest, left_out in GroupKFold(FOLDS).split(upright, groups=list(groups)):
        far[left_out] = _cloud(upright[rest], count, dataset_kind, max_coloured).distances(upright[left_out])
    each = np.quantile(far, 1 - false_alarms, axis=0)
    joint = _limit((far / each).max(axis=1), false_alarms)
    cloud = replace(_cloud(upright, count, dataset_kind, max_coloured), scales=(each * joint).astype(np.float32))
    inputs = np.concatenate([cloud.components(shown[:, number]) for number in range(len(POSES))])
    targets = np.repeat(np.arange(len(POSES)), len(films))
    poses = LogisticRegression(max_iter=2000).fit(inputs, targets)
    return replace(
        cloud,
        pose_weights=poses.coef_.astype(np.float32),
        pose_biases=poses.intercept_.astype(np.float32),
        films=np.stack([film.statistics for film in films]),
        embeddings=cloud.embed(upright),
    )


def _limit(distances: NDArray[np.float64], false_alarms: float) -> float:
    """Distance that few further films will lie beyond.

    The quantile of a hundred films is that of their farthest one. So the upper end of the prediction interval of a
    log-normal law is taken where it is larger, which it is for few films.
    """
    from scipy.stats import t

    count, logs = len(distances), np.log(distances)
    beyond = float(t.ppf(1 - false_alarms, count - 1))
    predicted = float(np.exp(logs.mean() + beyond * logs.std(ddof=1) * np.sqrt(1 + 1 / count)))
    return max(predicted, float(np.quantile(distances, 1 - false_alarms)))


def _cloud(outlines: Vector, count: int, dataset_kind: str, max_coloured: float) -> Reference:
    """Mean, main directions and variances of outlines; limits and poses are still to be fitted."""
    from sklearn.utils.extmath import randomized_svd

    mean = outlines.mean(axis=0)
    away = outlines - mean
    _, spread, directions = randomized_svd(away, count, n_iter=4, random_state=0)
    freedom = len(outlines) - 1
    variances = spread.astype(np.float64) ** 2 / freedom
    total = float((away.astype(np.float64) ** 2).sum()) / freedom
    nothing = np.zeros((0, 0), dtype=np.float32)
    return Reference(
        dataset_kind=dataset_kind,
        mean=mean,
        directions=directions.astype(np.float32),
        variances=variances.astype(np.float32),
        noise=max(QUIETEST, float((total - variances.sum()) / (outlines.shape[1] - count))),
        scales=np.ones(2, dtype=np.float32),
        pose_weights=nothing,
        pose_biases=nothing,
        max_coloured=max_coloured,
        films=nothing,
        embeddings=nothing,
    )


@dataclass(frozen=True)
class Judged:
    """What the check said of one film.

    Attributes:
        distance: how far it is from the training films; above 1 is too far.
        refusal: kind of its refusal; None if it is taken.
        poses: pose to the kind of refusal when the film is shown so; None where it is taken.
    """

    distance: float
    refusal: str | None
    poses: Mapping[str, str | None]


def judged(reference: Reference, picture: Picture) -> Judged:
    """Try the check on a film that it has not seen, as it is and in every other pose.

    Args:
        reference: the fitted reference.
        picture: the film, upright.

    Returns:
        What it said.
    """
    said: dict[str, str | None] = {}
    for pose in POSES:
        shown = Picture(posed(picture.grey, pose), picture.coloured)
        refusal = reference.refusal(shown, reference.film(shown))
        said[pose] = refusal.kind if refusal else None
    upright = said.pop("upright")
    distance = float(reference.distance(outline(picture.grey)[None])[0])
    return Judged(distance, upright, said)


def error_rates(films: Sequence[Judged]) -> dict[str, Any]:
    """How often films were refused, and how often they were noticed when turned or inverted.

    Args:
        films: what the check said of each.

    Returns:
        ``films``, ``refused`` and its ``share`` with the 95 % Wilson interval ``low``, ``high``, ``kinds``, and
        ``noticed``: pose to the share of films in it that were refused.
    """
    refused = np.array([one.refusal is not None for one in films], dtype=bool)
    share: NDArray[np.float64] = np.array([refused.mean()])
    low, high = wilson(share, np.array([len(films)]))
    return {
        "films": len(films),
        "refused": int(refused.sum()),
        "share": float(share[0]),
        "low": float(low[0]),
        "high": float(high[0]),
        "kinds": dict(Counter(one.refusal for one in films if one.refusal is not None)),
        "noticed": {
            pose: float(np.mean([one.poses[pose] is not None for one in films])) for pose in POSES if pose != "upright"
        },
    }
