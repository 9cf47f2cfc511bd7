"""Opens the raw images of a data folder."""

from __future__ import annotations

from pathlib import Path

from cxr.data.image_folder import ImageFolder
from cxr.images.raw_images import RawImages


def open_raw_images(data: Path) -> RawImages:
    """Open the raw images of a data folder; nothing is read yet.

    Args:
        data: the data folder, which need not exist.

    Returns:
        The images.
    """
    return ImageFolder(data)
