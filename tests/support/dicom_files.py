"""Small DICOM files for tests, with data of a patient that must never appear in any output."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SECRET = "Secret"
COMPRESSED = {
    "MR_small_RLE.dcm": "MR_small.dcm",
    "MR_small_jp2klossless.dcm": "MR_small.dcm",
    "MR_small_jpeg_ls_lossless.dcm": "MR_small.dcm",
    "MR_small_bigendian.dcm": "MR_small.dcm",
    "MR_small_implicit.dcm": "MR_small.dcm",
}
"""Files of the pydicom package, each with the file that shows the same image uncompressed."""


def dicom_dataset(stored: NDArray[Any], **tags: Any) -> Dataset:
    """Create the data set of a radiograph.

    Args:
        stored: stored values, ``(rows, columns)``, 8 or 16 bits.
        tags: elements to set by keyword; None removes one.

    Returns:
        The data set, uncompressed.
    """
    bits = stored.dtype.itemsize * 8
    dataset = Dataset()
    dataset.PatientName = f"{SECRET}^Person"
    dataset.PatientID = f"{SECRET}-4711"
    dataset.InstitutionName = f"{SECRET} Hospital"
    dataset.StudyDescription = f"{SECRET} study"
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["test"])
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = bits
    dataset.BitsStored = bits
    dataset.HighBit = int(tags.get("BitsStored") or bits) - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in tags.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def write_dicom(dataset: Dataset, syntax: str | None = None) -> bytes:
    """Write a data set as a file.

    Args:
        dataset: the data set.
        syntax: uncompressed transfer syntax to write; None for that of the data set.

    Returns:
        The file's content.
    """
    target = io.BytesIO()
    if syntax is not None:
        dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(target, enforce_file_format=True)
    return target.getvalue()


def dicom_file(stored: NDArray[Any], **tags: Any) -> bytes:
    """Write a radiograph as a DICOM file: :func:`dicom_dataset` and :func:`write_dicom`."""
    return write_dicom(dicom_dataset(stored, **tags))


def draw_12_bits(height: int = 40, width: int = 60) -> NDArray[np.uint16]:
    """Draw values of 12 bits that rise from the upper left corner, from 100 to about 3,900.

    Args:
        height: rows.
        width: columns.

    Returns:
        uint16 ``(height, width)``.
    """
    ramp = np.add.outer(np.arange(height) * 1.5, np.arange(width) * 1.0)
    return (100 + ramp / ramp.max() * 3800).astype(np.uint16)


def pydicom_file(name: str, **tags: Any) -> bytes:
    """Read a file of the pydicom package and mark it as made by a radiography device.

    Args:
        name: name of the file.
        tags: elements to set by keyword.

    Returns:
        The file's content.
    """
    dataset = pydicom.dcmread(str(get_testdata_file(name)))
    for keyword, value in {"Modality": "DX", "PatientName": f"{SECRET}^Person", **tags}.items():
        setattr(dataset, keyword, value)
    target = io.BytesIO()
    dataset.save_as(target)
    return target.getvalue()


def lookup_table(values: list[int], first: int, bits: int) -> Dataset:
    """Make a lookup table with entries from ``first`` on, of some bits."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(values) % 0x10000, first, bits])
    item.add_new("LUTData", "US", values)
    return item


def compressed_dicom(values: NDArray[Any], coded: bytes, syntax: str, **tags: Any) -> bytes:
    """Write a radiograph with coded pixels.

    Args:
        values: stored values that the tags describe.
        coded: the coded image.
        syntax: its transfer syntax.
        tags: elements to set by keyword.

    Returns:
        The file's content.
    """
    dataset = dicom_dataset(values, **tags)
    dataset.PixelData = encapsulate([coded])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    return write_dicom(dataset, syntax)


def compress_with_gdcm(content: bytes, kind: int, folder: Path) -> tuple[bytes, str]:
    """Compress a DICOM file with gdcm and return its coded pixels and transfer syntax.

    Args:
        content: an uncompressed file.
        kind: one of ``gdcm.TransferSyntax``.
        folder: where temporary files are written.

    Returns:
        The coded image and the transfer syntax.
    """
    import gdcm

    (folder / "plain.dcm").write_bytes(content)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(folder / "plain.dcm"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(kind))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(folder / "coded.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    coded = pydicom.dcmread(folder / "coded.dcm")
    return get_frame(coded.PixelData, 0, number_of_frames=1), coded.file_meta.TransferSyntaxUID
