"""Challenger and champion on the same frozen images: what both said is kept by content hash and compared."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import CxrError, DataError
from cxr.files import SPLITS_FILE
from cxr.promotion.rules import AUROC, SENSITIVITY, Facts, Match, Policy
from cxr.tracking.artifacts import fetch_model
from cxr.tracking.versions import Candidate

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from cxr.evaluation.pairing import Pair

FILE = "judged.parquet"


@dataclass(frozen=True)
class Opponents:
    """Two versions and what they were compared on.

    Attributes:
        match: figures for the rules.
        rows: the images with both probabilities (``ours`` is the challenger's); None if there is no comparison.
    """

    match: Match
    rows: pd.DataFrame | None


class FrozenImages:
    """What versions said about the images of their split, kept among the files of the promotion log's run."""

    def __init__(self, connected: MlflowClient, run_id: str) -> None:
        """Open the folder.

        Args:
            connected: client of the store.
            run_id: run of the promotion log.
        """
        self._client = connected
        self._run_id = run_id

    def keep(self, version: str, one: Candidate, splits: Path) -> None:
        """Keep what a version said; a version that is kept already is left as it is.

        Args:
            version: number of the version.
            one: the model that it was made of.
            splits: folder of the split that it was judged on.

        Raises:
            DataError: if the split is another one.
        """
        import pandas as pd

        from cxr.evaluation.pairing import judged_images
        from cxr.files import PREDICTIONS_FILE

        if self._has(version):
            return
        table = judged_images(pd.read_parquet(splits / SPLITS_FILE), pd.read_parquet(one.evaluation / PREDICTIONS_FILE))
        with tempfile.TemporaryDirectory() as scratch:
            table.to_parquet(Path(scratch) / FILE, index=False)
            self._client.log_artifact(self._run_id, str(Path(scratch) / FILE), _folder(version))

    def of(self, version: str) -> pd.DataFrame | None:
        """Read what a version said.

        Args:
            version: number of the version.

        Returns:
            Judged images, see :data:`cxr.evaluation.pairing.COLUMNS`; None if nothing was kept.
        """
        import pandas as pd

        if not self._has(version):
            return None
        with tempfile.TemporaryDirectory() as scratch:
            return pd.read_parquet(self._client.download_artifacts(self._run_id, f"{_folder(version)}/{FILE}", scratch))

    def _has(self, version: str) -> bool:
        return any(entry.path.endswith(FILE) for entry in self._client.list_artifacts(self._run_id, _folder(version)))


def oppose(
    frozen: FrozenImages,
    uri: str,
    candidate: Facts,
    champion: Facts,
    version: ModelVersion,
    policy: Policy,
    data: Path | None,
) -> Opponents:
    """Compare a challenger with the champion on images that the champion has not learned from.

    The champion's answers are those of its own evaluation where it has seen the very same image then; about others
    it is asked now.

    Args:
        frozen: what versions said.
        uri: address of the store.
        candidate: facts of the challenger.
        champion: facts of the champion.
        version: the champion.
        policy: specificity, confidence and bootstrap.
        data: folder of the raw images of the current data set, for a champion that must be asked.

    Returns:
        The comparison, or the reason why there is none.
    """
    from cxr.evaluation.comparison import compare
    from cxr.evaluation.metrics import auroc, sensitivity_at
    from cxr.evaluation.pairing import pair

    ours, theirs = frozen.of(candidate.version), frozen.of(champion.version)
    if ours is None or theirs is None:
        missing = candidate.version if ours is None else champion.version
        return _none(f"which images version {missing} was trained and judged on is not known")
    found = pair(ours, theirs, same_dataset=candidate.dataset == champion.dataset)
    if reason := found.too_few():
        return _none(reason, found.set_aside)
    afresh = len(found.unknown)
    if afresh:
        try:
            found = _asked(found, uri, version, data)
        except CxrError as error:
            return _none(f"it had to be asked about {afresh} new images: {error}", found.set_aside)
    comparison = compare(
        *found.tables(),
        (f"version {candidate.version}", f"version {champion.version}"),
        figures={AUROC: auroc, SENSITIVITY: partial(sensitivity_at, policy.specificity)},
        confidence=policy.confidence,
        resamples=policy.resamples,
        seed=policy.seed,
    )
    return Opponents(Match(comparison, comparison.images, found.set_aside, afresh), found.rows)


def _asked(found: Pair, uri: str, version: ModelVersion, data: Path | None) -> Pair:
    """Ask a version about the images that it has not judged yet."""
    import pandas as pd
    from tqdm import tqdm

    from cxr.inference.predictor import BATCH_SIZE, Predictor

    wanted = found.unknown
    if data is None or not data.is_dir():
        raise DataError(f"expected the folder of the images, received data={data}; give --data")
    with tempfile.TemporaryDirectory() as scratch:
        predictor = Predictor.load(fetch_model(uri, version, Path(scratch)))
        answers: list[float] = []
        with tqdm(total=len(wanted), desc=f"ask version {version.version}", unit="image", disable=None) as bar:
            for start in range(0, len(wanted), BATCH_SIZE):
                part = wanted["path"].iloc[start : start + BATCH_SIZE]
                answers += [one.probability for one in predictor.predict([data / path for path in part])]
                bar.update(len(part))
    return found.answered(pd.Series(answers, index=wanted.index))


def _none(reason: str, set_aside: int = 0) -> Opponents:
    return Opponents(Match(None, set_aside=set_aside, reason=reason), None)


def _folder(version: str) -> str:
    return f"versions/{version}"
