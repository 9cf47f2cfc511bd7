"""The classes that fit an image at a stated coverage, and the answer UNCERTAIN where that is not exactly one class."""

from __future__ import annotations

from dataclasses import dataclass

from cxr.data.dataset import NORMAL, PNEUMONIA

UNCERTAIN = "UNCERTAIN"
"""Label of an image that fits both classes or neither; it is an answer, never a class of a data set."""


@dataclass(frozen=True)
class PredictionSets:
    """Two thresholds on the calibrated probability of pneumonia, one per class.

    :func:`cxr.evaluation.conformal.fit_prediction_sets` fits them on validation images.

    Attributes:
        coverage: share of the images of each class whose set should hold their class, above 0 and below 1.
        normal_at_most: NORMAL fits at this probability of pneumonia and below, 0 to 1.
        pneumonia_at_least: PNEUMONIA fits at this probability of pneumonia and above, 0 to 1.
        normal_images: number of normal validation images that ``normal_at_most`` was fitted on.
        pneumonia_images: number of validation images with pneumonia that ``pneumonia_at_least`` was fitted on.
    """

    coverage: float
    normal_at_most: float
    pneumonia_at_least: float
    normal_images: int
    pneumonia_images: int

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            ValueError: if a value is out of bounds or not finite.
        """
        if not 0 < self.coverage < 1:
            raise ValueError(f"expected a coverage above 0 and below 1, received coverage={self.coverage!r}")
        for name in ("normal_at_most", "pneumonia_at_least"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"expected a threshold from 0 to 1, received {name}={getattr(self, name)!r}")
        for name in ("normal_images", "pneumonia_images"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"expected at least 1 image, received {name}={getattr(self, name)!r}")

    @property
    def uncertain_range(self) -> tuple[float, float]:
        """Ends of the probabilities that are UNCERTAIN, ascending.

        If both classes fit between them, the ends are uncertain, too; if neither does, the ends are not.
        """
        low, high = sorted((self.normal_at_most, self.pneumonia_at_least))
        return low, high

    def classes(self, probability: float) -> tuple[str, ...]:
        """Find the classes that fit an image.

        Args:
            probability: calibrated probability of pneumonia, 0 to 1.

        Returns:
            ``"NORMAL"``, ``"PNEUMONIA"``, both, or none.
        """
        fits = {NORMAL: probability <= self.normal_at_most, PNEUMONIA: probability >= self.pneumonia_at_least}
        return tuple(name for name, is_member in fits.items() if is_member)


def label_of(classes: tuple[str, ...]) -> str:
    """Name the answer of a prediction set.

    Args:
        classes: the classes that fit an image.

    Returns:
        The class if it is the only one, else ``"UNCERTAIN"``.
    """
    return classes[0] if len(classes) == 1 else UNCERTAIN
