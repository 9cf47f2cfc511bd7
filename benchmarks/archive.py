"""Memory of `cxr predict --dicomweb`, by the number of radiographs in the archive.

Run it with ``python benchmarks/archive.py [--images 2000 20000]``. A server on loopback stands for the archive. It has
one study for each four radiographs, and gives the pixels of one drawn radiograph under all UIDs. The network is
untrained: memory does not depend on weights.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
from scoring import NETWORKS, untrained
from whole_job import run

from cxr.data.phantom.dataset import draw_image, plan_dataset
from cxr.images.decoding import decode_grey
from cxr.models.backend import load_keras
from serving import write_model

NETWORK = "three_block"
PER_STUDY = 4
_ROOT = "2.25.1"
_TAGS = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[2000, 20000], help="numbers of radiographs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / NETWORK
        # In another process: the peak of a process counts what the one that started it had.
        writer = multiprocessing.get_context("spawn").Process(target=write_untrained, args=(model,))
        writer.start()
        writer.join()
        print(f"{'radiographs':>11} {'peak MiB':>9}")
        for images in arguments.images:
            server = start_archive(images)
            address = f"http://127.0.0.1:{server.server_port}/dicom-web"
            words = [sys.executable, "-m", "cxr.cli.main", "predict", "--model", str(model), "--dicomweb", address]
            words += ["--evaluation", str(model), "--since", "2024-01-01", "--output", f"{scratch}/{images}.parquet"]
            _, memory = run(words, Path(scratch))
            server.shutdown()
            server.server_close()
            print(f"{images:>11,} {memory:>9.0f}", flush=True)


def write_untrained(folder: Path) -> None:
    """Write the folder of a model that was not trained.

    Args:
        folder: folder to create.
    """
    load_keras()
    write_model(untrained(NETWORK, NETWORKS[NETWORK]), folder)


def uid(kind: str, number: int) -> str:
    """Make a UID that has the same length for all numbers.

    Args:
        kind: studies, series or instances.
        number: number of the object, below a thousand millions.

    Returns:
        The UID.
    """
    return f"{_ROOT}{list(_TAGS).index(kind)}{number:09d}"


def radiograph() -> bytes:
    """Draw one radiograph.

    Returns:
        A DICOM file with the UID of instance 0.
    """
    pixels = decode_grey(draw_image(plan_dataset(20, seed=0)[0], seed=0).data)
    dataset = Dataset()
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = uid("instances", 0)
    dataset.Modality, dataset.PhotometricInterpretation = "DX", "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def start_archive(images: int) -> ThreadingHTTPServer:
    """Start the archive.

    Args:
        images: number of its radiographs, all of modality DX.

    Returns:
        The server.
    """
    content = radiograph()

    class Archive(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            path = parts.path.removeprefix("/dicom-web/").split("/")
            if len(path) == 6:
                body = content.replace(uid("instances", 0).encode(), path[5].encode())
                self._answer("application/dicom", body)
                return
            query = parse_qs(parts.query)
            is_other = {*query.get("ModalitiesInStudy", []), *query.get("Modality", [])} == {"CR"}
            numbers = [] if is_other else list(self._numbers(path))
            offset, limit = (int(query.get(name, ["0"])[0]) for name in ("offset", "limit"))
            page = numbers[offset : offset + limit]
            entries = [{_TAGS[path[-1]]: {"vr": "UI", "Value": [uid(path[-1], number)]}} for number in page]
            self._answer("application/dicom+json", json.dumps(entries).encode())

        def _numbers(self, path: list[str]) -> Iterator[int]:
            if path[-1] == "studies":
                return iter(range(-(-images // PER_STUDY)))
            study = int(path[1][-9:])
            if path[-1] == "series":
                return iter([study])
            return iter(range(study * PER_STUDY, min(images, (study + 1) * PER_STUDY)))

        def _answer(self, kind: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Write no line for each request."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Archive)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


if __name__ == "__main__":
    main()
