"""Builds the reference of a split: fitted on training images, tested on images of other patients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cxr.data.splitting import unit_hash
from cxr.data.statistics import wilson_interval
from cxr.images.decoding import decode_image
from cxr.images.parallel import map_in_order
from cxr.images.raw_images import RawImages
from cxr.images.reading_options import VALIDATED
from cxr.images.result_cache import NO_CACHE, KeptResults, ResultCache
from cxr.images.shards import Shard
from cxr.images.strict_decoding import DecodedImage
from cxr.inference.reference.features import FloatArray, describe_image
from cxr.inference.reference.fitting import fit_reference
from cxr.inference.reference.poses import POSES, PosedFeatures, apply_pose, compose_poses, read_posed_features
from cxr.inference.reference.reference import Reference
from cxr.inference.reference.refusals import InspectedImage, first_refusal

if TYPE_CHECKING:
    import pandas as pd

    from cxr.data.dataset import DatasetCard

Result = TypeVar("Result")

_SPLITS = ("train", "validation", "test")
"""The parts of a split from which images are drawn."""


@dataclass(frozen=True)
class ReferenceCheck:
    """What a reference said of an image that it was not fitted on.

    Attributes:
        distance: how far the image is from the training images; above 1 is too far.
        refusal: kind of its refusal; None if it gets a prediction.
        poses: every pose but upright to the kind of refusal of the image in that pose; None if it gets a prediction.
    """

    distance: float
    refusal: str | None
    poses: Mapping[str, str | None]


def build_reference(
    images: RawImages,
    splits: pd.DataFrame,
    card: DatasetCard,
    split_digest: str,
    *,
    max_images: int,
    components: int,
    false_alarms: float,
    max_coloured: float,
    seed: int,
    workers: int | None = None,
    cache: ResultCache = NO_CACHE,
) -> tuple[Reference, dict[str, list[ReferenceCheck]]]:
    """Fit a reference on training images and count its refusals on validation and test.

    Args:
        images: the raw images.
        splits: columns ``path`` (name of an image), ``sha256``, ``split`` and ``group``.
        card: card of the data set.
        split_digest: digest of the split, for the facts.
        max_images: most images of each split; where there are more, :func:`draw_images` chooses.
        components: largest number of main directions.
        false_alarms: share of images of the same kind that may be refused, above 0.
        max_coloured: largest share of coloured pixels of a radiograph, 0 to 1.
        seed: seed of the draw.
        workers: threads; None for as many as suit the images.
        cache: keeps the features of each image, so that a later call describes new images only.

    Returns:
        The reference with its facts, and for validation and test the check of each image.

    Raises:
        DataError: if there are too few training images.
        ImageError: if an image cannot be decoded.
    """
    samples = {split: draw_images(splits, split, max_images, seed) for split in _SPLITS}
    train = samples.pop("train")
    known = _known_features(cache)
    with _single_threaded_matrices():
        fitted = fit_reference(
            _map_images(images, train, known, lambda features, _: features, "describe train images", workers),
            train["group"].tolist(),
            dataset_kind=card.kind,
            components=components,
            false_alarms=false_alarms,
            max_coloured=max_coloured,
        )
        checks = {
            split: _map_images(
                images, rows, known, partial(check_unseen_image, fitted), f"check {split} images", workers
            )
            for split, rows in samples.items()
        }
    facts = {
        "dataset": card.name,
        "split_digest": split_digest,
        "training_films": len(train),
        "wanted_false_alarms": false_alarms,
        **{split: error_rates(split_checks) for split, split_checks in checks.items() if split_checks},
    }
    return replace(fitted, facts=facts), checks


def describe_images(
    images: RawImages,
    splits: pd.DataFrame,
    shard: Shard,
    *,
    max_images: int,
    seed: int,
    workers: int | None,
    cache: ResultCache,
) -> None:
    """Describe a part of the images for a reference that another process builds, which finds the features in a cache.

    Args:
        images: the raw images.
        splits: as for :func:`build_reference`.
        shard: the part of the images that :func:`build_reference` draws.
        max_images: as for :func:`build_reference`.
        seed: as for :func:`build_reference`.
        workers: threads; None for as many as suit the images.
        cache: keeps the features.

    Raises:
        ImageError: if an image cannot be decoded.
    """
    import pandas as pd

    drawn = pd.concat([draw_images(splits, split, max_images, seed) for split in _SPLITS])
    start, end = shard.bounds(len(drawn))
    known = _known_features(cache)
    with _single_threaded_matrices():
        _map_images(images, drawn.iloc[start:end], known, lambda *_: None, f"describe images {shard}", workers)


def check_unseen_image(
    reference: Reference, features: PosedFeatures, load: Callable[[], DecodedImage]
) -> ReferenceCheck:
    """Try a reference on an image that it was not fitted on, as the image is and in every other pose.

    Args:
        reference: the fitted reference.
        features: the features of the image.
        load: gives the image, upright; called if a reason needs more than the features.

    Returns:
        What the reference said.
    """
    kinds: dict[str, str | None] = {}
    for pose in POSES:
        refusal = first_refusal(_posed_image(reference, features, load, pose))
        kinds[pose] = refusal.kind if refusal else None
    upright_kind = kinds.pop("upright")
    distance = float(reference.distance(features.descriptors[:1])[0])
    return ReferenceCheck(distance, upright_kind, kinds)


def _posed_image(
    reference: Reference, features: PosedFeatures, load: Callable[[], DecodedImage], pose: str
) -> InspectedImage:
    """An image in a pose; its pixels are loaded only when they are needed."""

    def load_image() -> DecodedImage:
        image = load()
        return DecodedImage(apply_pose(image.grey, pose), image.coloured_share)

    def describe_in_pose(second_pose: str) -> FloatArray:
        composed = compose_poses(pose, second_pose)
        if composed is None:
            return describe_image(apply_pose(load_image().grey, second_pose))
        descriptor: FloatArray = features.descriptors[tuple(POSES).index(composed)]
        return descriptor

    return InspectedImage(
        features.coloured_share,
        reference,
        load_image=load_image,
        load_features=lambda: reference.features(load_image()),
        describe_in_pose=describe_in_pose,
    )


def error_rates(checks: Sequence[ReferenceCheck]) -> dict[str, Any]:
    """Count how often images were refused, and how often turned or inverted ones were noticed.

    Args:
        checks: what the reference said of each image.

    Returns:
        ``films`` (number of images), ``refused`` and its ``share`` with the 95 % Wilson interval ``low``, ``high``,
        ``kinds`` (kind of refusal to its number), and ``noticed`` (pose to the share of images that were refused in
        it).
    """
    refused = np.array([check.refusal is not None for check in checks], dtype=bool)
    share: NDArray[np.float64] = np.array([refused.mean()])
    low, high = wilson_interval(share, np.array([len(checks)]))
    return {
        "films": len(checks),
        "refused": int(refused.sum()),
        "share": float(share[0]),
        "low": float(low[0]),
        "high": float(high[0]),
        "kinds": dict(Counter(check.refusal for check in checks if check.refusal is not None)),
        "noticed": {
            pose: float(np.mean([check.poses[pose] is not None for check in checks]))
            for pose in POSES
            if pose != "upright"
        },
    }


@contextmanager
def _single_threaded_matrices() -> Iterator[None]:
    """Let one thread compute with each matrix.

    They are small. Several threads would wait for each other, for minutes on a busy processor.
    """
    import sklearn.linear_model  # noqa: F401  # the limit below is for libraries that are loaded already
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def _known_features(cache: ResultCache) -> KeptResults[PosedFeatures]:
    """Features of images that were described before."""
    return cache.results(
        read_posed_features.__module__,
        "features",
        key=VALIDATED.to_text(),
        to_bytes=PosedFeatures.to_bytes,
        from_bytes=PosedFeatures.from_bytes,
    )


def draw_images(splits: pd.DataFrame, split: str, max_images: int, seed: int) -> pd.DataFrame:
    """Draw images of a split by a hash of their content.

    An image is drawn if the hash of its sha256 and the seed is among the smallest. So new images replace as many drawn
    ones as they are drawn themselves, and all others stay.

    Args:
        splits: columns ``path``, ``sha256``, ``split`` and others.
        split: the split.
        max_images: most images; all are taken where there are no more.
        seed: chooses one of many equally good draws.

    Returns:
        Rows of ``splits``, sorted by path.
    """
    rows = splits[splits["split"] == split].sort_values("path")
    if len(rows) <= max_images:
        return rows
    hashes = np.fromiter((unit_hash(f"{seed}:{digest}") for digest in rows["sha256"]), np.float64, len(rows))
    return rows.iloc[np.sort(np.argsort(hashes, kind="stable")[:max_images])]


def _map_images(
    images: RawImages,
    rows: pd.DataFrame,
    known: KeptResults[PosedFeatures],
    function: Callable[[PosedFeatures, Callable[[], DecodedImage]], Result],
    description: str,
    workers: int | None,
) -> list[Result]:
    """Call a function for each image in threads, with a progress bar; results have the order of the rows."""
    from tqdm import tqdm

    def read_and_call(path: str) -> Result:
        features = known.compute(images, path, read_posed_features)[1]
        return function(features, lambda: decode_image(images.read(path), VALIDATED))

    results = map_in_order(read_and_call, ((path,) for path in rows["path"]), workers or images.workers)
    return list(tqdm(results, desc=description, total=len(rows), unit="image", disable=None))
