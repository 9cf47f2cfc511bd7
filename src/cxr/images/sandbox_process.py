"""The process that decodes pictures for :class:`cxr.images.sandbox.LimitedReader`; it knows nothing but its pipes.

A request is a head (bytes, largest number of pixels, seconds) and a file's content; an answer is a head and either
grey levels or a problem with its detail, two lines of text. Nothing is pickled.
"""

from __future__ import annotations

import os
import signal
import struct
import sys

import cv2
import numpy as np

from cxr.errors import ImageError
from cxr.images.decoding import decode_picture
from cxr.images.sandbox_rights import confine

READY = b"R"
REQUEST = struct.Struct("<QQd")
ANSWER = struct.Struct("<BIId")
"""Kind, height, width, share of coloured pixels; or kind, number of bytes of text, 0, 0."""
PICTURE, PROBLEM = 0, 1
OPEN_FILES = 4
"""Requests, nowhere twice, and answers."""


def main() -> None:
    """Answer requests from the standard input until it ends.

    The first argument of the program is the memory in bytes that decoding may take.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when it's over
    requests = open(0, "rb", closefd=False)  # noqa: SIM115  # until this process ends
    answers = os.dup(1)
    _load_decoders()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # libraries write there what they think of a file
        os.dup2(nowhere, stream)
    os.close(nowhere)
    confine(int(sys.argv[1]), OPEN_FILES)
    _write(answers, READY)
    while len(head := requests.read(REQUEST.size)) == REQUEST.size:
        size, max_pixels, seconds = REQUEST.unpack(head)
        data = requests.read(size)
        # Ends this process by itself if nobody is left to end it.
        signal.setitimer(signal.ITIMER_REAL, 2 * seconds)
        _write(answers, *_answer(data, max_pixels))
        signal.setitimer(signal.ITIMER_REAL, 0)
        del data


def _answer(data: bytes, max_pixels: int) -> tuple[bytes, bytes | memoryview]:
    try:
        picture = decode_picture(data, max_pixels=max_pixels)
        grey = np.ascontiguousarray(picture.grey)
        return ANSWER.pack(PICTURE, *grey.shape, picture.coloured), grey.data.cast("B")
    except ImageError as error:
        problem, detail = error.problem, error.detail
    except MemoryError:
        problem, detail = "too_large", "the picture does not fit into the memory that it may take"
    except Exception:
        # Whatever a decoder comes up with about a file that was made to confuse it: the next file is another.
        problem, detail = "corrupt", "the content cannot be decoded"
    text = f"{problem}\n{detail}".encode()
    return ANSWER.pack(PROBLEM, len(text), 0, 0.0), text


def _load_decoders() -> None:
    """Load all that decoding needs, as no file can be opened later, and start no threads."""
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
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(descriptor, rest) :]


if __name__ == "__main__":
    main()
