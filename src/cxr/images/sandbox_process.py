"""The process that decodes images for :class:`cxr.images.sandbox.SandboxedDecoder`; it has access to its pipes only.

A process starts with the options as JSON. A request is a header (bytes, seconds) and the content of a file. A response
is a header, grey levels if there are any, and JSON: the warnings, or the problem. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys

import cv2
import numpy as np

from cxr.errors import ImageError
from cxr.images.decoding import decode_image
from cxr.images.reading_options import ReadingOptions
from cxr.images.sandbox_rights import drop_rights

READY = b"R"
REQUEST = struct.Struct("<Qd")
RESPONSE = struct.Struct("<IIdI")
"""Height and width (0 where there is no image), share of coloured pixels, number of bytes of JSON."""
OPEN_FILES = 4
"""Requests, the null device twice (as stdout and stderr), and responses."""


def main() -> None:
    """Respond to requests on standard input until it ends.

    The arguments of the program are the memory in bytes that decoding may use, and the options.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends this one
    requests = open(0, "rb", closefd=False)  # noqa: SIM115  # open until this process ends
    responses = os.dup(1)
    _load_decoders()
    null_device = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # libraries write their warnings about a file there
        os.dup2(null_device, stream)
    os.close(null_device)
    options = ReadingOptions.from_text(sys.argv[2])
    drop_rights(int(sys.argv[1]), OPEN_FILES)
    _write(responses, READY)
    while len(header := requests.read(REQUEST.size)) == REQUEST.size:
        size, seconds = REQUEST.unpack(header)
        data = requests.read(size)
        # This process ends itself if its parent no longer exists to end it.
        signal.setitimer(signal.ITIMER_REAL, 2 * seconds)
        _write(responses, *_respond(data, options))
        signal.setitimer(signal.ITIMER_REAL, 0)
        del data


def _respond(data: bytes, options: ReadingOptions) -> tuple[bytes | memoryview, ...]:
    """Decode a file and return the parts of the response."""
    try:
        image = decode_image(data, options)
        grey = np.ascontiguousarray(image.grey)
        text = json.dumps(image.warnings).encode()
        return RESPONSE.pack(*grey.shape, image.coloured_share, len(text)), grey.data.cast("B"), text
    except ImageError as error:
        problem, detail = error.problem, error.detail
    except MemoryError:
        problem, detail = "too_large", "the image does not fit into the memory that may be used"
    except Exception:
        # A decoder can raise anything on a file that was made to confuse it. The next file must still be decoded.
        problem, detail = "corrupt", "the content cannot be decoded"
    text = json.dumps([problem, detail]).encode()
    return RESPONSE.pack(0, 0, 0.0, len(text)), text


def _load_decoders() -> None:
    """Import everything that decoding needs, because no file can be opened later, and start no threads."""
    import gdcm  # noqa: F401
    import pydicom.datadict
    import pydicom.encaps
    import pydicom.filereader
    import pydicom.pixels.decoders  # noqa: F401

    import cxr.images.dicom.display
    import cxr.images.dicom.stored
    import cxr.images.dicom.suitability  # noqa: F401

    cv2.setNumThreads(1)


def _write(descriptor: int, *parts: bytes | memoryview) -> None:
    for part in parts:
        remaining = memoryview(part)
        while remaining:
            remaining = remaining[os.write(descriptor, remaining) :]


if __name__ == "__main__":
    main()
