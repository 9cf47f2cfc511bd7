"""Predictions for labelled images: refused ones get a prediction, too, so that figures with them can be told."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cxr.cpu import available_cores
from cxr.data.dataset import NORMAL
from cxr.data.grouping import patient_groups
from cxr.data.label_table import LabelledImage
from cxr.errors import ImageError
from cxr.files import utf8_name
from cxr.images.decoding import decode_image
from cxr.images.parallel import map_in_order
from cxr.images.sharpness import measure_sharpness
from cxr.images.strict_decoding import describe_warnings
from cxr.inference.checked_prediction import CheckedImage, check_image, predict_checked
from cxr.inference.scoring.batch import ScoringModel, expect_predictions
from cxr.inference.scoring.sources import ImageFile, ImageSource
from cxr.inference.scoring.table import FIRST_ERRORS, error_kind, problem_kinds

if TYPE_CHECKING:
    from cxr.images.reading_options import ReadingOptions
    from cxr.images.recipes import Recipe
    from cxr.inference.predictor import Prediction
    from cxr.inference.reference.reference import Reference
    from cxr.inference.reference.refusals import Refusal

SUBTYPE_UNKNOWN = "pneumonia"
"""Subtype of images of pneumonia whose kind is unknown."""


_FACTS = ("width", "height", "brightness", "sharpness")


@dataclass(frozen=True, slots=True)
class _ReadImage:
    """A file after reading; ``image`` is prepared also where it is refused."""

    image: CheckedImage | None
    refusal: Refusal | None = None
    error: str = ""
    warning: str = ""
    sha256: str | None = None
    facts: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(_FACTS, math.nan))


def predict_labelled_images(
    source: ImageSource,
    images: Sequence[LabelledImage],
    model: ScoringModel,
    *,
    options: ReadingOptions,
    workers: int | None,
    batch_size: int,
) -> pd.DataFrame:
    """Read, check and predict images whose class is known, as batch scoring does.

    Args:
        source: where the images are read from.
        images: images of ``source``.
        model: the model, with its threshold and calibration.
        options: what is accepted when a file is read.
        workers: number of threads; None for as many as suit the source.
        batch_size: images per network call.

    Returns:
        One row per image: path, label, subtype, group (a number per patient; images with the same content share one),
        probability_raw and probability (NaN where the file cannot be read), threshold, refusal (kind; None if the
        model answers), error (kind and description; empty if it can be read), warning, sha256, width, height,
        brightness (mean grey level) and sharpness (NaN likewise), embedding, and ``film.NAME`` for each statistic of
        the model's reference.

    Raises:
        SourceError: if the source fails.
        DataError: if no image can be read.
        MissingInputError: if the model isn't calibrated.
    """
    predictor, reference = model.predictor, model.reference
    files = {file.path: file for file in source.files}
    read = partial(_read_image, source, predictor.recipes, reference, options)
    threads = workers or source.workers or available_cores()
    items = ((files[image.path],) for image in images)
    prepared = map_in_order(read, items, threads, max_pending=max(2 * threads, batch_size))
    facts: list[dict[str, object]] = []
    with tqdm(total=len(images), unit=" images", desc=f"judge {source.name}", disable=None) as progress:
        while batch := list(islice(prepared, batch_size)):
            readable = [file.image for file in batch if file.image is not None]
            results = iter(predict_checked(predictor, readable, batch_size))
            facts += [_row(file, None if file.image is None else next(results).prediction) for file in batch]
            progress.update(len(batch))
    errors = [f"{image.path}: {row['error']}" for image, row in zip(images, facts, strict=True) if row["error"]]
    expect_predictions(len(images) - len(errors), errors[:FIRST_ERRORS])
    rows = pd.DataFrame(facts)
    rows.insert(0, "path", [utf8_name(image.path) for image in images])
    rows.insert(1, "label", [image.label for image in images])
    rows.insert(2, "subtype", [image.subtype or _default_subtype(image.label) for image in images])
    rows.insert(3, "group", _groups(images, rows["sha256"]))
    return rows.assign(threshold=predictor.metadata.threshold)


def count_errors(rows: pd.DataFrame) -> dict[str, int]:
    """Count the files that cannot be read.

    Args:
        rows: what :func:`predict_labelled_images` returned.

    Returns:
        Kind of problem to number of files, the most frequent first.
    """
    return dict(Counter(error_kind(text) for text in rows["error"] if text).most_common())


def count_warnings(rows: pd.DataFrame) -> dict[str, int]:
    """Count the files that are read although they are unusual.

    Args:
        rows: what :func:`predict_labelled_images` returned.

    Returns:
        Kind of problem to number of files, the most frequent first.
    """
    return dict(Counter(kind for text in rows["warning"] for kind in problem_kinds(text)).most_common())


def read_grey(source: ImageSource, path: str, options: ReadingOptions) -> NDArray[np.uint8]:
    """Read one image once more, to show it.

    Args:
        source: where it is read from.
        path: its path in a table of predictions.
        options: what is accepted.

    Returns:
        ``(height, width)`` uint8.
    """
    file = next(file for file in source.files if utf8_name(file.path) == path)
    return decode_image(source.read(file), options).grey


def _read_image(
    source: ImageSource,
    recipes: Sequence[Recipe],
    reference: Reference | None,
    options: ReadingOptions,
    file: ImageFile,
) -> _ReadImage:
    sha256 = None
    try:
        data = source.read(file)
        sha256 = hashlib.sha256(data).hexdigest()
        decoded = decode_image(data, options)
        image = check_image(recipes, reference, decoded)
        refusal, features = image.refusal, image.features
        if refusal is not None:
            image = replace(check_image(recipes, None, decoded), features=features)
    except ImageError as error:
        return _ReadImage(None, error=utf8_name(str(error)), sha256=sha256)
    height, width = decoded.grey.shape
    values = (width, height, float(decoded.grey.mean()), measure_sharpness(decoded.grey))
    facts = dict(zip(_FACTS, values, strict=True))
    return _ReadImage(image, refusal, warning=describe_warnings(decoded.warnings), sha256=sha256, facts=facts)


def _row(file: _ReadImage, prediction: Prediction | None) -> dict[str, object]:
    features = None if file.image is None else file.image.features
    # The names under which a prediction log keeps statistics, because drift reads them there.
    statistics = {} if features is None else {f"film.{name}": value for name, value in features.statistics.items()}
    error = file.error
    if prediction is not None and not 0 <= prediction.probability <= 1:
        error, prediction = f"no_answer: the network gave {prediction.probability}", None
    return {
        "probability_raw": np.nan if prediction is None else prediction.raw_probability,
        "probability": np.nan if prediction is None else prediction.probability,
        "refusal": file.refusal.kind if file.refusal else None,
        "error": error,
        "warning": file.warning,
        "sha256": file.sha256,
        **file.facts,
        "embedding": None if features is None else np.asarray(features.embedding, dtype=np.float32),
        **statistics,
    }


def _default_subtype(label: str) -> str:
    return "normal" if label == NORMAL else SUBTYPE_UNKNOWN


def _groups(images: Sequence[LabelledImage], sha256: pd.Series) -> list[int]:
    """Number the patients; an image without one is its own. Keys of patients stay outside of the result."""
    patients = [
        f"image {number}" if image.patient is None else f"patient {image.patient}"
        for number, image in enumerate(images)
    ]
    facts = pd.DataFrame({"patient": patients, "sha256": sha256.to_numpy(), "duplicate_group": ""})
    return [int(number) for number in pd.factorize(patient_groups(facts))[0]]
