"""Small sets in the format of the RSNA Pneumonia Detection Challenge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from support import bad_images
from support.dicom_files import dicom_dataset, write_dicom

LABELS = "stage_2_train_labels.csv"
SIDE = 128
"""Side of the images in pixels; those of the challenge have 1024."""

Row = Sequence[float]


def rsna_image(seed: int, side: int = SIDE, spacing: Sequence[float] = (0.2, 0.2)) -> bytes:
    """Write an image as the challenge has it: 8 bits, JPEG inside of DICOM.

    Args:
        seed: seed of the drawn image.
        side: rows and columns.
        spacing: height and width of a pixel in mm.

    Returns:
        The file's content.
    """
    pixels = bad_images.draw_image(seed, side, side)
    dataset = dicom_dataset(pixels, Modality="CR", ViewPosition="PA", PixelSpacing=list(spacing))
    dataset.PixelData = encapsulate([bad_images.jpeg(pixels)])
    dataset["PixelData"].is_undefined_length = True
    return write_dicom(dataset, JPEGBaseline8Bit)


def write_labels(folder: Path, boxes: Mapping[str, Sequence[Row]]) -> None:
    """Write the table of labels.

    Args:
        folder: an existing folder.
        boxes: patientId to its rows x, y, width, height; no rows for Target 0.
    """
    lines = ["patientId,x,y,width,height,Target"]
    for key, rows in boxes.items():
        lines += [f"{key},{','.join(map(str, row))},1" for row in rows] or [f"{key},,,,,0"]
    (folder / LABELS).write_text("\n".join(lines) + "\n")


def write_rsna_set(folder: Path, boxes: Mapping[str, Sequence[Row]]) -> Path:
    """Write labels and images.

    Args:
        folder: where to write; made if missing.
        boxes: patientId to its rows x, y, width, height; no rows for Target 0.

    Returns:
        The folder.
    """
    (folder / "stage_2_train_images").mkdir(parents=True)
    write_labels(folder, boxes)
    for seed, key in enumerate(boxes):
        (folder / "stage_2_train_images" / f"{key}.dcm").write_bytes(rsna_image(seed))
    return folder
