"""Keeps what libraries say about values of images and messages out of the log: it names patients and UIDs."""

from __future__ import annotations

import logging
import warnings

_LIBRARIES = ("pydicom", "pynetdicom", "highdicom", "dicomweb_client")
_SILENT = logging.CRITICAL + 1


def silence_libraries() -> None:
    """Let no library of DICOM write to the log or warn, in this process."""
    from pynetdicom import _config

    _config.LOG_HANDLER_LEVEL = "none"
    for library in _LIBRARIES:
        logging.getLogger(library).setLevel(_SILENT)
        warnings.filterwarnings("ignore", module=rf"{library}(\.|$)")
