"""The sandboxed processes that decode compressed DICOM pixels for this process, started when the first one comes."""

from __future__ import annotations

import atexit
import os
import threading

from cxr.cpu import available_cores
from cxr.images.reading_options import ReadingOptions
from cxr.images.sandbox import SandboxedDecoder
from cxr.images.strict_decoding import DecodedImage

SECONDS = 60.0
"""Longest time for one file. JPEG 2000 of 50 million pixels takes about ten seconds."""

_ANY_SIZE = 1 << 40
"""The caller has read the file already."""
_decoders: dict[tuple[int, ReadingOptions], SandboxedDecoder] = {}
_lock = threading.Lock()


def decode_in_sandbox(data: bytes, options: ReadingOptions) -> DecodedImage:
    """Decode a file in a process that may end without ending this one. Several threads may call this.

    Args:
        data: the whole content of the file.
        options: what is accepted.

    Returns:
        The decoded image.

    Raises:
        ImageError: as :meth:`cxr.images.sandbox.SandboxedDecoder.decode`.
    """
    key = (os.getpid(), options)  # a process that was forked needs processes of its own
    with _lock:
        if key not in _decoders:
            decoder = SandboxedDecoder(
                processes=available_cores(), seconds=SECONDS, max_bytes=_ANY_SIZE, options=options
            )
            atexit.register(decoder.close)
            _decoders[key] = decoder
    return _decoders[key].decode(data)
