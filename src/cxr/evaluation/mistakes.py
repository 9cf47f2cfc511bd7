"""The test images that a model got wrong with the most confidence: the first thing a reader wants to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.images.decoding import decode_grey
from cxr.images.prepared import Prepared

MISSED, FALSE_ALARM = "missed", "false alarm"


def worst_mistakes(predictions: pd.DataFrame, threshold: float, count: int = 6) -> pd.DataFrame:
    """Find the most confident errors among the test images.

    Args:
        predictions: rows with path, label, split and probability (calibrated).
        threshold: probability from which an image is called pneumonia.
        count: at most this many of each kind.

    Returns:
        Those rows with the added column kind: ``"missed"`` (pneumonia, the lowest probability first), then
        ``"false alarm"`` (normal, the highest first). Equal probabilities go by path.
    """
    test = predictions[predictions["split"] == "test"].sort_values(["probability", "path"])
    called = test["probability"] >= threshold
    missed = test[(test["label"] == PNEUMONIA) & ~called].head(count).assign(kind=MISSED)
    alarms = test[(test["label"] == NORMAL) & called]
    alarms = alarms.sort_values(["probability", "path"], ascending=[False, True]).head(count)
    return pd.concat([missed, alarms.assign(kind=FALSE_ALARM)], ignore_index=True)


def pictures(paths: list[str], prepared: Prepared | None, data: Path | None = None) -> list[NDArray[np.uint8]] | None:
    """Grey images to show: the files themselves where they are there, else the prepared images.

    Args:
        paths: image paths relative to the data folder.
        prepared: prepared images, often smaller than a reader would like; None if there are none.
        data: data folder, or None.

    Returns:
        One (height, width) uint8 array per path; None if an image is in neither.
    """
    shown: list[NDArray[np.uint8]] = []
    for path in paths:
        file = data / path if data is not None else None
        if file is not None and file.is_file():
            shown.append(decode_grey(file.read_bytes()))
        elif prepared is not None:
            shown.append(np.asarray(prepared.images[prepared.rows([path])[0], :, :, 0]))
        else:
            return None
    return shown
