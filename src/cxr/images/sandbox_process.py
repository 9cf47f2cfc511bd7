"""The process that decodes images for :class:`cxr.images.sandbox.SandboxedDecoder`; it has access to its pipes only.

A process starts with the options as JSON. A request is a header (bytes, seconds, whether the file is described and not
decoded) and the content of a file. A response is a header, grey levels if there are any, and JSON: the warnings, the
description, or the problem. Nothing is pickled.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import re
import signal
import struct
import sys

import cv2
import numpy as np

from cxr.errors import ImageError
from cxr.images.dicom.reader import has_compressed_pixels
from cxr.images.dicom.source_image import describe_source_image
from cxr.images.reading_options import ReadingOptions
from cxr.images.sandbox_rights import drop_rights
from cxr.images.strict_decoding import decode_in_process

READY = b"R"
REQUEST = struct.Struct("<Qd?")
RESPONSE = struct.Struct("<IIdI")
"""Height and width (0 where there is no image), share of coloured pixels, number of bytes of JSON."""
OPEN_FILES = 5
"""Requests, the null device as stdout, messages of the decoders (both ends of a pipe), and responses."""
_PIPE_BYTES = 1 << 16
_DAMAGE = re.compile(rb"Corrupt JPEG data[^\n]*|Premature end of JPEG[^\n]*")
"""What libjpeg writes to stderr about damaged pixels, inside gdcm too, before it goes on with grey ones."""


def main() -> None:
    """Respond to requests on standard input until it ends.

    The arguments of the program are the memory in bytes that decoding may use, and the options.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends this one
    requests = open(0, "rb", closefd=False)  # noqa: SIM115  # open until this process ends
    responses = os.dup(1)
    _load_decoders()
    messages = _redirect_messages()
    options = ReadingOptions.from_text(sys.argv[2])
    drop_rights(int(sys.argv[1]), OPEN_FILES)
    _write(responses, READY)
    while len(header := requests.read(REQUEST.size)) == REQUEST.size:
        size, seconds, describes = REQUEST.unpack(header)
        data = requests.read(size)
        # This process ends itself if its parent no longer exists to end it.
        signal.setitimer(signal.ITIMER_REAL, 2 * seconds)
        _write(responses, *_respond(data, options, messages, describes))
        signal.setitimer(signal.ITIMER_REAL, 0)
        del data


def _redirect_messages() -> int:
    """Let libraries write their messages about a file into a pipe, and return its other end."""
    null_device = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_device, 1)
    os.close(null_device)
    messages, stderr = os.pipe()
    os.dup2(stderr, 2)
    os.close(stderr)
    for end in (messages, 2):  # where the pipe is full, further messages are lost
        os.set_blocking(end, False)
    return messages


def _refuse_damage(data: bytes, messages: bytes) -> None:
    """Refuse compressed DICOM pixels that their decoder called damaged. Plain JPEG is decoded strictly anyway."""
    damage = _DAMAGE.search(messages)
    if damage is not None and has_compressed_pixels(data):
        reason = damage[0].decode("ascii", "replace")
        raise ImageError("corrupt", f"the coded pixels are damaged ({reason}); get the file again")


def _take_messages(messages: int) -> bytes:
    """Empty the pipe of messages."""
    with contextlib.suppress(BlockingIOError):
        return os.read(messages, _PIPE_BYTES)
    return b""


def _respond(data: bytes, options: ReadingOptions, messages: int, describes: bool) -> tuple[bytes | memoryview, ...]:
    """Decode or describe a file and return the parts of the response."""
    try:
        if describes:
            text = json.dumps(describe_source_image(data, options).to_values(), ensure_ascii=False).encode()
            return RESPONSE.pack(0, 0, 0.0, len(text)), text
        _take_messages(messages)
        image = decode_in_process(data, options)
        _refuse_damage(data, _take_messages(messages))
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
    import pydicom.charset
    import pydicom.datadict
    import pydicom.encaps
    import pydicom.filereader
    import pydicom.pixels.decoders

    import cxr.images.dicom.display
    import cxr.images.dicom.stored
    import cxr.images.dicom.suitability  # noqa: F401

    for codec in {*pydicom.charset.python_encoding.values()}:
        codecs.lookup(codec)
    cv2.setNumThreads(1)


def _write(descriptor: int, *parts: bytes | memoryview) -> None:
    for part in parts:
        remaining = memoryview(part)
        while remaining:
            remaining = remaining[os.write(descriptor, remaining) :]


if __name__ == "__main__":
    main()
