"""The coded concepts of reports: codes of the standards where they exist, else codes of the private scheme 99CXR.

A private code is never changed or reused: archives keep reports for decades.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

if TYPE_CHECKING:
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from pydicom import Dataset

PRIVATE_SCHEME = "99CXR"
_MAX_CODE, _MAX_MEANING = 16, 64

CHEST_RADIOGRAPHY = Code("399208008", "SCT", "Plain chest X-ray")
LUNG = Code("39607008", "SCT", "Lung structure")
COMMENT: Code = codes.DCM.Comment
DEVICE: Code = codes.DCM.Device
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
NO_UNIT: Code = codes.UCUM.NoUnits

PROBABILITY = Code("PROBABILITY", PRIVATE_SCHEME, "Calibrated probability of pneumonia")
THRESHOLD = Code("THRESHOLD", PRIVATE_SCHEME, "Operating point on the probability of pneumonia")
LABEL = Code("LABEL", PRIVATE_SCHEME, "Label of the model")
REFUSAL = Code("REFUSAL", PRIVATE_SCHEME, "Reason why there is no prediction")
LABELS = {
    "PNEUMONIA": Code("PNEUMONIA", PRIVATE_SCHEME, "PNEUMONIA, as the model labels it"),
    "NORMAL": Code("NORMAL", PRIVATE_SCHEME, "NORMAL, as the model labels it"),
    "UNCERTAIN": Code("UNCERTAIN", PRIVATE_SCHEME, "UNCERTAIN, as the model labels it"),
}
"""Labels are private codes: a label compares a probability with a threshold, and is no finding of a physician."""


def refusal_code(reason: str) -> Code:
    """Code the reason why there is no prediction.

    Args:
        reason: key of a refusal or of a problem of the file, such as ``"no_chest_film"``.

    Returns:
        A private code.
    """
    return Code(reason.upper()[:_MAX_CODE], PRIVATE_SCHEME, f"No prediction: {reason}"[:_MAX_MEANING])


def as_item(code: Code) -> Dataset:
    """Write a code as the item of a sequence."""
    from highdicom.sr import CodedConcept

    return CodedConcept.from_code(code)  # type: ignore[no-any-return]


def private_scheme() -> CodingSchemeIdentificationItem:
    """Describe the private scheme for the head of a file."""
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    return CodingSchemeIdentificationItem(
        PRIVATE_SCHEME, name="Concepts of cxr", responsible_organization="cxr, a research program"
    )
