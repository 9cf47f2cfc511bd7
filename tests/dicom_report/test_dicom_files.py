"""Reports and captures as DICOM files: valid, readable by others, the same for the same answer, whatever the source."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import highdicom
import numpy as np
import pydicom
import pytest

from cxr.dicom_report.answer import NOTICE, ReportedAnswer, ReportedModel
from cxr.dicom_report.concepts import refusal_code
from cxr.dicom_report.picture import PICTURE_SIDE, draw_picture
from cxr.dicom_report.secondary_capture import build_capture
from cxr.dicom_report.structured_report import build_report
from cxr.errors import ImageError
from cxr.images.dicom.source_image import describe_source_image
from cxr.images.problems import PROBLEMS
from cxr.images.reading_options import STRICT
from cxr.inference.reference.refusals import REASONS
from cxr.regions.scoring import ScoredBox
from support.dicom_files import draw_12_bits, write_dicom
from support.dicom_reports import HAS_DCIODVFY, IDENTITY, content_items, errors_of, radiograph

MODEL = ReportedModel("vgg16", "3", "pneumonia-classifier", "s2_64", "0123456789abcdef", "phantom", "Drawn images.")
TIME = datetime(2024, 7, 8, 9, 10, 11, 121314, UTC)
ILL = ReportedAnswer(MODEL, TIME, 0.8123456789012345, 0.3712345678901234, "PNEUMONIA")
REFUSED = ReportedAnswer(
    MODEL, TIME, refusal_reason="no_chest_film", refusal_text="it looks like a hand; give a chest radiograph"
)
PIXELS = np.zeros((64, 48, 3), np.uint8)

ODD_SOURCES: dict[str, dict[str, Any]] = {
    "as it should be": {},
    "Latin-1": {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jürgen"},
    "UTF-8": {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "山田^太郎=やまだ^たろう"},
    "Japanese": {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎"},
    "one name": {"PatientName": "Plato"},
    "no patient": {"PatientName": None, "PatientID": None, "PatientBirthDate": None, "PatientSex": None},
    "sex with a blank": {"PatientSex": "M "},
    "unknown sex": {"PatientSex": "unknown"},
    "old date": {"PatientBirthDate": "1961.02.03"},
    "impossible date": {"PatientBirthDate": "19610231", "StudyDate": "0", "StudyTime": "99"},
    "long numbers": {"AccessionNumber": "A" * 40, "StudyID": "7" * 30},
    "two groups too many": {"PatientName": "a=b=c=d=e"},
    "issuer": {"IssuerOfPatientID": "Hospital"},
    "orientation": {"PatientOrientation": ["L", "F"]},
    "nothing but UIDs": dict.fromkeys((*IDENTITY, "InstitutionName", "StudyDescription")),
}


def read(content: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(content))


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("name", ODD_SOURCES)
@pytest.mark.parametrize("deidentified", [False, True])
def test_odd_sources_give_valid_files(name: str, deidentified: bool, tmp_path: Path) -> None:
    image = describe_source_image(radiograph(draw_12_bits(), **ODD_SOURCES[name]), STRICT)
    contents = {
        "ill": build_report(ILL, image, deidentified=deidentified),
        "refused": build_report(REFUSED, image, deidentified=deidentified),
        "capture": build_capture(ILL, image, PIXELS, deidentified=deidentified),
    }
    for kind, content in contents.items():
        dataset = read(content)
        assert dataset.StudyInstanceUID == image.study_instance_uid and dataset.SOPInstanceUID.is_valid, kind
        if HAS_DCIODVFY:
            (tmp_path / kind).write_bytes(content)
            assert errors_of(tmp_path / kind) == [], kind
    assert len({read(content).SOPInstanceUID for content in contents.values()}) == 2  # both reports are of one film


@pytest.mark.parametrize(
    ("name", "attribute", "expected"),
    [
        ("Latin-1", "PatientName", "Müller^Jürgen"),
        ("UTF-8", "PatientName", "山田^太郎=やまだ^たろう"),
        ("Japanese", "PatientName", "Yamada^Tarou=山田^太郎"),
        ("sex with a blank", "PatientSex", "M"),
        ("unknown sex", "PatientSex", ""),
        ("old date", "PatientBirthDate", "19610203"),
        ("impossible date", "PatientBirthDate", ""),
        ("long numbers", "AccessionNumber", ""),
        ("no patient", "PatientName", ""),
        ("issuer", "IssuerOfPatientID", "Hospital"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_the_patient_is_that_of_the_source(name: str, attribute: str, expected: str) -> None:
    image = describe_source_image(radiograph(draw_12_bits(), **ODD_SOURCES[name]), STRICT)
    for content in (
        build_report(ILL, image, deidentified=False),
        build_capture(ILL, image, PIXELS, deidentified=False),
    ):
        assert str(read(content).get(attribute) or "") == expected


@pytest.mark.parametrize(
    "tags",
    [
        {"StudyInstanceUID": None},
        {"SeriesInstanceUID": ""},
        {"StudyInstanceUID": "1.2.three"},
        {"SOPInstanceUID": "1.02.3"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"},
        {"PatientID": "7" * 80},
        {"PatientID": ["4711", "4712"]},
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_a_source_that_no_report_can_be_filed_beside_is_refused_without_its_values(tags: dict[str, Any]) -> None:
    with pytest.raises(ImageError) as raised:
        describe_source_image(radiograph(draw_12_bits(), **tags), STRICT)
    assert raised.value.problem == "unidentified"
    assert not any(value in str(raised.value) for value in ("1.2.three", "1.02.3", "7777", "4711"))


def test_a_report_is_read_back_as_a_measurement_report() -> None:
    image = describe_source_image(radiograph(draw_12_bits()), STRICT)
    report = highdicom.sr.ComprehensiveSR.from_dataset(read(build_report(ILL, image, deidentified=False)))
    (group,) = report.content.get_image_measurement_groups()
    measured = {measurement.name.value: measurement.value for measurement in group.get_measurements()}
    assert measured == {"PROBABILITY": pytest.approx(0.812346), "THRESHOLD": pytest.approx(0.371235)}
    (label,) = group.get_qualitative_evaluations()
    assert (label.name.value, label.value.value, label.value.scheme_designator) == ("LABEL", "PNEUMONIA", "99CXR")
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE", "UNVERIFIED", "PRELIMINARY",
    )  # fmt: skip
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == image.sop_instance_uid
    items = list(content_items(report))
    for expected in (
        ("Comment", NOTICE),
        ("Comment", "Drawn images."),
        ("Algorithm Name", "pneumonia-classifier"),
        ("Algorithm Version", "3"),
        ("Device Observer Name", "pneumonia-classifier version 3"),
    ):
        assert expected in items


def test_every_reason_has_a_code_of_its_own() -> None:
    reasons = [*REASONS, *PROBLEMS, "no_answer"]
    assert len({refusal_code(reason).value for reason in reasons}) == len(set(reasons))


def test_a_film_that_is_answered_twice_by_a_version_is_one_instance() -> None:
    image = describe_source_image(radiograph(draw_12_bits()), STRICT)
    first = build_report(ILL, image, deidentified=False)
    assert first == build_report(ILL, image, deidentified=False)
    later = replace(ILL, answered_at=TIME.replace(year=2025))
    assert read(build_report(later, image, deidentified=False)).SOPInstanceUID == read(first).SOPInstanceUID
    others = [
        build_report(replace(ILL, model=replace(MODEL, version="4")), image, deidentified=False),
        build_report(replace(ILL, model=replace(MODEL, card_digest="f" * 16)), image, deidentified=False),
        build_report(ILL, image, deidentified=True),
        build_capture(ILL, image, PIXELS, deidentified=False),
        build_report(ILL, describe_source_image(radiograph(draw_12_bits(), 2), STRICT), deidentified=False),
    ]
    uids = {read(content).SOPInstanceUID for content in (first, *others)}
    assert len(uids) == len(others) + 1


def test_a_capture_is_derived_from_its_image_and_names_burnt_in_text() -> None:
    image = describe_source_image(radiograph(draw_12_bits()), STRICT)
    capture = read(build_capture(ILL, image, PIXELS, deidentified=False))
    assert capture.BurnedInAnnotation == "YES" and list(capture.ImageType) == ["DERIVED", "SECONDARY"]
    (source,) = capture.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == image.sop_instance_uid and NOTICE in capture.DerivationDescription
    assert (capture.pixel_array == PIXELS).all()


def test_the_picture_shows_heat_boxes_and_text_in_its_corner_alone() -> None:
    grey = np.full((300, 240), 90, np.uint8)
    heat = np.zeros(grey.shape, np.float32)
    heat[150:200, 100:150] = 1

    def draw(answer: ReportedAnswer, **values: Any) -> Any:
        arguments = {"original_width": 480, "heat": None, "boxes": None, "phantom_boxes": False}
        return draw_picture(grey, answer, **{**arguments, **values})

    refused = draw(REFUSED)
    assert max(refused.shape) == PICTURE_SIDE and (refused[300:] == 90).all(), "the text stands in the corner"
    assert (refused[:120] == 255).any()
    hot, boxed = draw(ILL, heat=heat), draw(ILL, boxes=[ScoredBox(200, 300, 100, 100, 0.7)])
    scale = PICTURE_SIDE / grey.shape[0]
    centre = hot[round(175 * scale), round(125 * scale)]
    assert centre[0] > centre[2] + 50, "heat is yellow"
    assert (boxed[round(150 * scale), round(110 * scale)] == (0xE6, 0x9F, 0x00)).all()
    warned = draw(ILL, boxes=[], phantom_boxes=True)
    assert warned.shape[0] > PICTURE_SIDE, "boxes of phantoms are named under the image"
    narrow = draw_picture(
        cv2.resize(grey, (60, 300)), REFUSED, original_width=60, heat=None, boxes=None, phantom_boxes=False
    )
    assert narrow.shape[:2] == (PICTURE_SIDE, round(PICTURE_SIDE / 5))


def test_nothing_of_a_patient_is_in_the_representation_of_a_source() -> None:
    image = describe_source_image(radiograph(draw_12_bits()), STRICT)
    assert repr(image) == "SourceImage(rows=40, columns=60)"


def test_implicit_and_big_endian_files_are_described_alike() -> None:
    content = radiograph(draw_12_bits())
    expected = describe_source_image(content, STRICT)
    for syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"):
        assert describe_source_image(write_dicom(read(content), syntax), STRICT) == expected
