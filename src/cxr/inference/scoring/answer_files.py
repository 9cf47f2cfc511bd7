"""Files that are written for each image besides its row in the table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxr.images.recipes import Recipe
    from cxr.images.strict_decoding import DecodedImage
    from cxr.inference.checked_prediction import CheckedImage
    from cxr.inference.scoring.table import PredictionRow


class AnswerFiles(ABC):
    """Writes files about images, such as DICOM reports, while a batch is scored."""

    @property
    @abstractmethod
    def recipes(self) -> Sequence[Recipe]:
        """Recipes that images are prepared by for these files, also those that the model needs itself."""

    @abstractmethod
    def examine(self, data: bytes, image: DecodedImage | None) -> Any:
        """Take from an image what is needed after the model has answered. Several threads call this at once.

        Args:
            data: the whole content of the file.
            image: the decoded image; None if it could not be decoded.

        Returns:
            What :meth:`write` gets. It is kept as long as the file's batch.
        """

    @abstractmethod
    def write(self, examined: Any, image: CheckedImage | None, row: PredictionRow) -> None:
        """Write the files about one image. They are complete before its row is kept.

        Args:
            examined: what :meth:`examine` gave.
            image: the checked image; None if it could not be decoded.
            row: the answer.
        """

    @abstractmethod
    def figures(self, digests: Iterable[str | None]) -> Mapping[str, Any]:
        """Figures for the summary of a table, the same however often the run was interrupted.

        Args:
            digests: SHA-256 of the images of the table; None for one that was not read.
        """
