"""Challenger and champion on the same images: one paired comparison of two versions of the registered model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr.errors import CxrError, DataError, ImageError
from cxr.files import scratch_folder
from cxr.promotion.facts import CommonFacts
from cxr.promotion.policy import AUROC, AVERAGE_PRECISION, SENSITIVITY, AnyPolicy, DetectorPolicy

if TYPE_CHECKING:
    import pandas as pd

    from cxr.evaluation.comparison import ModelComparison
    from cxr.images.raw_images import RawImages

FetchModel = Callable[[Path], Path]
"""Copies the model of a version into an empty folder and returns the folder that a predictor reads."""


@dataclass(frozen=True)
class VersionComparison:
    """Challenger and champion on the same images.

    Attributes:
        result: their figures, challenger first; None if they cannot be compared.
        images: test images that both are compared on.
        set_aside: test and validation images left out because the champion has learned from their patients.
        newly_predicted: images that the champion predicted for this comparison, because its evaluation lacks them.
        reason: why there is no comparison; empty if there is one.
        rows: the compared images with the probabilities of both, or the average precisions of detectors, columns
            ``ours`` (challenger) and ``theirs`` (champion); None if there is no comparison.
    """

    result: ModelComparison | None
    images: int = 0
    set_aside: int = 0
    newly_predicted: int = 0
    reason: str = ""
    rows: pd.DataFrame | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for ``decision.json``, without the images."""
        return {
            "comparison": self.result.to_dict() if self.result else None,
            "images": self.images,
            "set_aside": self.set_aside,
            "afresh": self.newly_predicted,
            "reason": self.reason,
        }

    def figures(self) -> dict[str, float]:
        """Figures for the promotion log: name to value, empty without a comparison."""
        if self.result is None:
            return {}
        figures: dict[str, float] = {"test_images": self.images}
        for name, (ours, theirs) in self.result.validation.items():
            figures |= {f"validation_{name}": ours, f"validation_{name}_champion": theirs}
        for name, difference in self.result.test.items():
            interval = {"difference": difference.difference, "low": difference.low, "high": difference.high}
            figures |= {f"test_{name}_{part}": value for part, value in interval.items()}
        return {name: round(float(value), 6) for name, value in figures.items()}


def are_comparable(candidate: CommonFacts, champion: CommonFacts | None) -> bool:
    """Whether the rules need a comparison of two versions on images.

    Args:
        candidate: the challenger.
        champion: the version that is champion now; None if there is none.

    Returns:
        False if there is no other champion, or if only one of the two was trained on phantoms.
    """
    if champion is None or champion.version == candidate.version:
        return False
    return candidate.dataset_kind == champion.dataset_kind


def compare_versions(
    candidate: CommonFacts,
    champion: CommonFacts,
    policy: AnyPolicy,
    *,
    candidate_images: pd.DataFrame | None,
    champion_images: pd.DataFrame | None,
    fetch_champion: FetchModel,
    raw: RawImages | None,
) -> VersionComparison:
    """Compare a challenger with the champion on images that the champion has not learned from.

    The champion's own evaluation gives its probabilities for the images that it contains; the champion predicts the
    other images now. Detectors are only compared if both were judged on one split.

    Args:
        candidate: facts of the challenger.
        champion: facts of the champion.
        policy: specificity, confidence and bootstrap.
        candidate_images: images of the challenger's split with its results, as
            :func:`cxr.evaluation.pairing.split_with_predictions` gives them; None if they were not kept.
        champion_images: the same of the champion.
        fetch_champion: copies the champion's model, if it has to predict.
        raw: the raw images of the current data set; None if they are not at hand.

    Returns:
        The comparison, or the reason why there is none.
    """
    from cxr.evaluation.comparison import compare_models
    from cxr.evaluation.metrics import auroc, sensitivity_at
    from cxr.evaluation.pairing import pair_predictions

    if candidate_images is None or champion_images is None:
        unknown = candidate.version if candidate_images is None else champion.version
        return VersionComparison(None, reason=f"which images version {unknown} was trained and judged on is not known")
    if isinstance(policy, DetectorPolicy):
        return _compare_detectors(candidate, champion, policy, candidate_images, champion_images)
    paired = pair_predictions(candidate_images, champion_images, same_dataset=candidate.dataset == champion.dataset)
    if reason := paired.shortage():
        return VersionComparison(None, set_aside=paired.excluded, reason=reason)
    missing = paired.missing
    if len(missing):
        try:
            paired = paired.with_missing(_predict(champion, fetch_champion, missing, raw))
        except CxrError as error:
            reason = f"it had to predict {len(missing)} new images: {error}"
            return VersionComparison(None, set_aside=paired.excluded, reason=reason)
    result = compare_models(
        *paired.prediction_tables(),
        (f"version {candidate.version}", f"version {champion.version}"),
        metrics={AUROC: auroc, SENSITIVITY: partial(sensitivity_at, policy.specificity)},
        confidence=policy.confidence,
        resamples=policy.resamples,
        seed=policy.seed,
    )
    return VersionComparison(result, result.images, paired.excluded, len(missing), rows=paired.rows)


def _compare_detectors(
    candidate: CommonFacts,
    champion: CommonFacts,
    policy: DetectorPolicy,
    candidate_images: pd.DataFrame,
    champion_images: pd.DataFrame,
) -> VersionComparison:
    """Compare two detectors on the images of one split by the average precision of each image."""
    from cxr.data.split_table import TEST, VALIDATION
    from cxr.evaluation.comparison import compare_models
    from cxr.evaluation.pairing import PairedPredictions
    from cxr.regions.average_precision import mean_average_precision
    from cxr.regions.evaluation import PER_IMAGE

    if (candidate.data_digest, candidate.split_digest) != (champion.data_digest, champion.split_digest):
        return VersionComparison(
            None,
            reason=f"it was judged on split {candidate.split_digest[:8]} of data {candidate.data_digest[:8]}, the "
            f"champion on split {champion.split_digest[:8]} of data {champion.data_digest[:8]}; train on the "
            "champion's split, or choose by hand in MLflow's page",
        )
    columns = ["sha256", "path", "group", "label", "split"]
    theirs = champion_images.set_index("path")[PER_IMAGE]
    rows = candidate_images[candidate_images["split"].isin((VALIDATION, TEST))].reset_index(drop=True)
    rows = rows[columns].assign(ours=rows[PER_IMAGE], theirs=rows["path"].map(theirs))
    if reason := PairedPredictions(rows, 0).shortage():
        return VersionComparison(None, reason=reason)
    result = compare_models(
        rows.assign(**{PER_IMAGE: rows["ours"]}),
        rows.assign(**{PER_IMAGE: rows["theirs"]}),
        (f"version {candidate.version}", f"version {champion.version}"),
        metrics={AVERAGE_PRECISION: lambda labels, values, weight: mean_average_precision(np.asarray(values), weight)},
        column=PER_IMAGE,
        confidence=policy.confidence,
        resamples=policy.resamples,
        seed=policy.seed,
    )
    return VersionComparison(result, result.images, rows=rows)


def _predict(champion: CommonFacts, fetch: FetchModel, images: pd.DataFrame, raw: RawImages | None) -> pd.Series:
    """Calibrated probabilities of the champion for images, with their index."""
    import pandas as pd
    from tqdm import tqdm

    from cxr.images.parallel import map_in_order
    from cxr.inference.predictor import BATCH_SIZE, Predictor

    if raw is None or not raw.folder.is_dir():
        received = None if raw is None else raw.folder
        raise DataError(f"expected the folder of the images, received data={received}; give --data")
    probabilities: list[float] = []
    with scratch_folder() as scratch:
        predictor = Predictor.load(fetch(scratch))
        with tqdm(total=len(images), desc=f"version {champion.version}", unit="image", disable=None) as progress:
            for start in range(0, len(images), BATCH_SIZE):
                names = images["path"].iloc[start : start + BATCH_SIZE]
                contents = list(map_in_order(partial(_read_image, raw), ((name,) for name in names), raw.workers))
                probabilities += [prediction.probability for prediction in predictor.predict(contents)]
                progress.update(len(names))
    return pd.Series(probabilities, index=images.index)


def _read_image(raw: RawImages, name: str) -> bytes:
    try:
        return raw.read(name)
    except ImageError as error:
        raise ImageError(error.problem, f"{name}: {error.detail}") from error
