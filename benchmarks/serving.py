"""`cxr serve` with one and two workers, against bare decoding, preprocessing and network calls in one process.

Run it with ``python benchmarks/serving.py [FOLDER or TAR] [--requests 200]``. Without a source it uses the full-size
sample beside the repository if it exists, else it draws phantoms. The network is untrained: speed does not depend on
weights. Each request is one image, and eight clients send requests at once. The bare loop predicts one image at a time.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import IO

import numpy as np
from scoring import NETWORKS, SAMPLE, untrained

from cxr.data.phantom.dataset import PhantomPlan, draw_dataset, draw_image
from cxr.images.decoding import decode_grey
from cxr.images.recipes import apply_recipe
from cxr.inference.predictor import Predictor
from cxr.models.backend import load_keras

CLIENTS = 8


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", type=Path, default=SAMPLE if SAMPLE.exists() else None)
    parser.add_argument("--requests", type=int, default=200, help="requests of a measurement; files are repeated")
    arguments = parser.parse_args()
    load_keras()
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        if arguments.source is None:
            draw_dataset(data, images=60, seed=0)
        elif arguments.source.is_file():
            shutil.unpack_archive(arguments.source, data)
        else:
            data = arguments.source
        files = [path.read_bytes() for path in sorted(data.rglob("*.jpeg"))[:50]]
        images = list(islice(cycle(files), arguments.requests))
        print(f"{len(images)} requests of one image, {CLIENTS} clients, {os.cpu_count()} cores\n")
        print(f"{'':<14}{'workers':>8}{'requests/s':>12}{'ratio':>8}{'median':>9}{'p95':>8}")
        for network, recipe in NETWORKS.items():
            predictor = untrained(network, recipe)
            bare_speed, times = measure_bare(predictor, images)
            print_row(network, "bare", bare_speed, bare_speed, times)
            folder = Path(scratch) / network
            write_model(predictor, folder)
            for workers in (1, 2):
                speed, times = measure_service(folder, workers, images)
                print_row(network, str(workers), speed, bare_speed, times)


def write_model(predictor: Predictor, folder: Path) -> None:
    """Write the folder of a model.

    Args:
        predictor: the model.
        folder: folder to create.
    """
    from cxr.models.networks import build_network

    folder.mkdir()
    build_network(predictor.metadata.model, predictor.recipe.input_shape).save(folder / "model.keras")
    predictor.metadata.write(folder)


def print_row(network: str, name: str, speed: float, bare_speed: float, times: list[float]) -> None:
    """Print one line of the table.

    Args:
        network: name of the network.
        name: number of workers.
        speed: requests per second.
        bare_speed: images per second of the bare loop.
        times: seconds of each request.
    """
    median, p95 = np.quantile(times, [0.5, 0.95])
    print(
        f"{network:<14}{name:>8}{speed:>12.1f}{speed / bare_speed:>8.2f}{median * 1000:>6.0f} ms{p95 * 1000:>5.0f} ms"
    )


def measure_bare(predictor: Predictor, images: list[bytes]) -> tuple[float, list[float]]:
    """Decode, prepare and predict one image after another.

    Args:
        predictor: the model.
        images: content of the files.

    Returns:
        Images per second, and the seconds of each image.
    """

    def predict(image: bytes) -> float:
        started = time.perf_counter()
        predictor.probabilities(np.stack([apply_recipe(predictor.recipe, decode_grey(image))]))
        return time.perf_counter() - started

    predict(images[0])  # compiles the network
    times = [predict(image) for image in images]
    return len(images) / sum(times), times


def measure_service(model: Path, workers: int, images: list[bytes]) -> tuple[float, list[float]]:
    """Send requests to a service.

    Args:
        model: folder of the model.
        workers: number of workers.
        images: content of the files, one per request.

    Returns:
        Requests per second, and the seconds of each request.
    """
    with running_service(model, workers) as (_, port):
        started = time.perf_counter()
        times = predict_all(port, images, CLIENTS)
        return len(images) / (time.perf_counter() - started), times


@contextmanager
def running_service(model: Path, workers: int, *arguments: str) -> Iterator[tuple[int, int]]:
    """Start a service and wait until every worker answers.

    Args:
        model: folder of the model.
        workers: number of workers.
        arguments: further arguments of `cxr serve`.

    Yields:
        Id of its process, and its port.
    """
    words = ["serve", "--model", str(model), "--port", "0", "--workers", str(workers), "--waiting", "64", *arguments]
    with tempfile.TemporaryFile() as log:
        service = subprocess.Popen([sys.executable, "-m", "cxr.cli.main", *words], stderr=log)
        try:
            while not (ports := re.findall(r"answering on http://127.0.0.1:(\d+)", text := read(log))):
                if service.poll() is not None:
                    raise SystemExit(text)
                time.sleep(0.2)
            port, ready = int(ports[0]), f"{float(workers)}"
            while ready not in request(port, "GET", "/metrics").partition("cxr_workers{")[2].partition("\n")[0]:
                time.sleep(0.2)
            # Now every worker compiles its network.
            image = draw_image(PhantomPlan("test", "bacteria", 1, 0, "drawn.jpeg"), seed=0).data
            predict_all(port, [image] * 4 * CLIENTS, CLIENTS)
            yield service.pid, port
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait()


def read(log: IO[bytes]) -> str:
    """Read a file from its beginning."""
    return os.pread(log.fileno(), 1 << 20, 0).decode(errors="replace")


def predict_all(port: int, images: list[bytes], clients: int) -> list[float]:
    """Send each image as one request.

    Args:
        port: port of the service.
        images: content of the files.
        clients: requests at once.

    Returns:
        Seconds of each request.
    """

    def predict(image: bytes) -> float:
        started = time.perf_counter()
        request(port, "POST", "/v1/predictions", image)
        return time.perf_counter() - started

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(predict, images))


def request(port: int, method: str, path: str, body: bytes | None = None) -> str:
    """Send a request to the service.

    Args:
        port: its port.
        method: HTTP method.
        path: path.
        body: an image.

    Returns:
        Text of the response.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {"Content-Type": "image/jpeg"})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    if response.status != 200:
        raise SystemExit(f"{path}: {response.status} {text}")
    return text


if __name__ == "__main__":
    main()
