"""A model's probabilities for its validation images: the sensitivity and specificity of any threshold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.files import PREDICTIONS_FILE, VALIDATION_SCORES_FILE, read_arrays
from cxr.models.stored_files import check_digest
from cxr.tables import read_table


@dataclass(frozen=True)
class ValidationScores:
    """Calibrated probabilities of the validation images, with their labels.

    Attributes:
        probability: ``(n,)`` float64, calibrated probability of pneumonia, 0 to 1.
        pneumonia: ``(n,)`` bool, whether the image shows pneumonia.
    """

    probability: NDArray[np.float64]
    pneumonia: NDArray[np.bool_]

    def sensitivity(self, threshold: float) -> float:
        """Compute the share of the images with pneumonia that are called PNEUMONIA.

        Args:
            threshold: probability at and above which an image is called PNEUMONIA, 0 to 1.

        Returns:
            0 to 1; NaN without such images.
        """
        return _share(self.probability[self.pneumonia] >= threshold)

    def specificity(self, threshold: float) -> float:
        """Compute the share of the images without pneumonia that are called NORMAL.

        Args:
            threshold: probability at and above which an image is called PNEUMONIA, 0 to 1.

        Returns:
            0 to 1; NaN without such images.
        """
        return _share(self.probability[~self.pneumonia] < threshold)

    def save(self, folder: Path) -> Path:
        """Write both arrays to ``validation.npz``.

        Args:
            folder: an existing folder.

        Returns:
            The written file.
        """
        path = folder / VALIDATION_SCORES_FILE
        np.savez_compressed(path, probability=self.probability, pneumonia=self.pneumonia)
        return path

    @classmethod
    def load(cls, folder: Path) -> ValidationScores | None:
        """Read ``validation.npz``.

        Args:
            folder: folder of a registered version.

        Returns:
            The scores; None if there are none, as in versions made before they were kept.

        Raises:
            DataError: if the file is damaged.
        """
        path = folder / VALIDATION_SCORES_FILE
        if not path.is_file():
            return None
        check_digest(path)
        stored = read_arrays(path, ("probability", "pneumonia"), "register the model again")
        return cls(stored["probability"].astype(np.float64), stored["pneumonia"].astype(bool))

    @classmethod
    def from_evaluation(cls, folder: Path) -> ValidationScores:
        """Read the scores of an evaluation.

        Args:
            folder: folder of the evaluation, with ``predictions.parquet``.

        Returns:
            The scores of its validation images.
        """
        from cxr.data.dataset import PNEUMONIA
        from cxr.data.split_table import VALIDATION

        rows = read_table(folder / PREDICTIONS_FILE, columns=["split", "label", "probability"])
        rows = rows[rows["split"] == VALIDATION]
        return cls(rows["probability"].to_numpy(dtype=np.float64), (rows["label"] == PNEUMONIA).to_numpy(dtype=bool))


def _share(hits: NDArray[np.bool_]) -> float:
    return float(hits.mean()) if hits.size else float("nan")
