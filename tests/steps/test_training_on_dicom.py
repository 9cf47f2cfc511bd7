"""Labelled DICOM files become training data, and their pixels are read as at prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.images.prepared import PreparedImages
from cxr.images.reading_options import STRICT
from cxr.inference.scoring.file_reading import read_in_batches
from cxr.inference.scoring.sources import FolderImages
from cxr.steps.fetch import Fetch
from cxr.steps.preprocess import Preprocess
from cxr.steps.resplit import Resplit
from cxr.steps.validate import Validate
from support import bad_images
from support.dicom_files import SECRET, dicom_file

SUFFIXES = (".dcm", ".dicom", ".DICOM", ".ima", ".DCM", "")
WAYS_OF_STORING = (
    {"BitsStored": 12},
    {"BitsStored": 12, "PhotometricInterpretation": "MONOCHROME1"},
    {"BitsStored": 12, "WindowCenter": 1500, "WindowWidth": 2000},
    {"BitsStored": 12, "PixelSpacing": [0.3, 0.2]},
)


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """48 radiographs of 24 patients in DICOM, named and stored in several ways; the labels are folders."""
    rows = ["path,patient"]
    for number in range(48):
        label = ("NORMAL", "PNEUMONIA")[number % 2]
        path = Path(label, f"1.2.840.113.{number}{SUFFIXES[number % len(SUFFIXES)]}")
        stored = bad_images.draw_image(number).astype(np.uint16) * 16
        (tmp_path / "hospital" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "hospital" / path).write_bytes(dicom_file(stored, **WAYS_OF_STORING[number % 4]))
        rows.append(f"{path.as_posix()},{label}-{number // 4}")
    (tmp_path / "hospital" / "patients.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "hospital" / "NORMAL" / "notes.txt").write_text("about")
    return tmp_path / "hospital"


def test_labelled_dicom_files_are_fetched_validated_split_and_prepared(
    hospital: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Fetch.build({"source": str(hospital)}).execute()
    Validate.build({"naming": "any", "tracking_uri": "", "offline": True}).execute()
    Resplit.build({"max_deviation": 0.5}).execute()
    Preprocess.build({"recipe": "s1_resize", "prepared": "prepared"}).execute()

    manifest = pd.read_parquet("artifacts/manifest/manifest.parquet")
    assert set(manifest["status"]) == {"accepted"} and set(manifest["problem"]) == {""}
    splits = pd.read_parquet("artifacts/splits/splits.parquet")
    assert len(splits) == 48 and splits["patient"].nunique() == 24
    assert (splits.groupby("patient")["split"].nunique() == 1).all()

    prepared = PreparedImages.open(Path("prepared"))
    source = FolderImages(hospital)
    (files,) = read_in_batches(
        source, source.files, (prepared.recipe,), None, options=STRICT, workers=1, batch_size=len(source.files)
    )
    at_prediction = {file.path: file.image.prepared[prepared.recipe] for file in files if file.image is not None}
    assert at_prediction.keys() == set(prepared.index["path"]) and len(at_prediction) == 48
    for path, pixels in zip(prepared.index["path"], prepared.images, strict=True):
        np.testing.assert_array_equal(pixels, at_prediction[path], err_msg=path)
    written = [path for folder in ("artifacts", "prepared") for path in Path(folder).rglob("*") if path.is_file()]
    assert all(SECRET.encode() not in path.read_bytes() for path in written), "nothing about a patient is copied"
