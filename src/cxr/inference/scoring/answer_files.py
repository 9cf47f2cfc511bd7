"""Files that are written for each image besides its row in the table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxr.images.strict_decoding import DecodedImage
    from cxr.inference.checked_prediction import CheckedImage
    from cxr.inference.scoring.table import PredictionRow


class AnswerFiles(ABC):
    """Writes files about images, such as DICOM reports, while a batch is scored."""

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
