"""The test images that a model classified wrongly with the highest confidence."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.data.split_table import TEST
from cxr.images.decoding import decode_grey
from cxr.images.prepared import PreparedImages
from cxr.images.raw_images import RawImages
from cxr.images.reading_options import VALIDATED

MISSED, FALSE_ALARM = "missed", "false alarm"


def worst_mistakes(predictions: pd.DataFrame, threshold: float, count: int) -> pd.DataFrame:
    """Find the most confident mistakes among the test images.

    Args:
        predictions: rows with path, label, split and probability (calibrated).
        threshold: probability from which an image is called pneumonia.
        count: maximum of each kind.

    Returns:
        Those rows with the added column kind: ``"missed"`` (pneumonia, the lowest probability first), then
        ``"false alarm"`` (normal, the highest first). Equal probabilities are ordered by path.
    """
    test = predictions[predictions["split"] == TEST].sort_values(["probability", "path"])
    called = test["probability"] >= threshold
    missed = test[(test["label"] == PNEUMONIA) & ~called].head(count).assign(kind=MISSED)
    alarms = test[(test["label"] == NORMAL) & called]
    alarms = alarms.sort_values(["probability", "path"], ascending=[False, True]).head(count)
    return pd.concat([missed, alarms.assign(kind=FALSE_ALARM)], ignore_index=True)


def images_to_show(paths: list[str], prepared: PreparedImages | None, raw: RawImages) -> list[NDArray[np.uint8]] | None:
    """Load grey images to show: the raw images where they exist, otherwise the prepared images.

    Args:
        paths: names of images.
        prepared: prepared images, often smaller than the raw ones; None if there are none.
        raw: the raw images.

    Returns:
        One (height, width) uint8 array per path; None if an image is in neither.
    """
    images: list[NDArray[np.uint8]] = []
    for path in paths:
        if path in raw:
            images.append(decode_grey(raw.read(path), VALIDATED))
        elif prepared is not None:
            images.append(np.asarray(prepared.images[int(prepared.rows([path])[0])][:, :, 0]))
        else:
            return None
    return images
