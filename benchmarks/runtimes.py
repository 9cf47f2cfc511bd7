"""Whole requests to `cxr serve` with Keras on TensorFlow, and with ONNX Runtime, one image each.

Run it with ``python benchmarks/runtimes.py [--requests 40] [--rounds 5]``; ``make onnx`` installs what it needs. The
networks are untrained: speed does not depend on weights. Images are drawn. Both services are alive and get requests in
turn, so that their ratio is valid on any machine. The processor time is that of all processes of a service; it says
more than the latency where other programs are busy. It is read from ``/proc`` (Linux).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from scoring import untrained

from cxr.data.phantom.dataset import draw_dataset
from cxr.models.backend import load_keras
from serving import CLIENTS, predict_all, running_service, write_model

NETWORKS = {"efficientnet_lite0": "s4_resize", "three_block": "s2_resize"}
RUNTIMES = ("keras", "onnx")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=40, help="requests of a round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    load_keras()
    print(f"{os.cpu_count()} cores; {arguments.rounds} rounds of {arguments.requests} requests; Keras, ONNX, ratio\n")
    columns = [f"{title}, {clients} cl." for clients in (1, CLIENTS) for title in ("latency ms", "CPU ms a request")]
    print(f"{'':<20}{'workers':>8}" + "".join(f"{title:>26}" for title in (*columns, "memory of a worker MiB")))
    with tempfile.TemporaryDirectory() as scratch:
        draw_dataset(Path(scratch) / "data", images=20, seed=0)
        files = [path.read_bytes() for path in sorted((Path(scratch) / "data").rglob("*.jpeg"))]
        images = (files * arguments.requests)[: arguments.requests]
        for network, recipe in NETWORKS.items():
            model = Path(scratch) / network
            write_model(untrained(network, recipe), model)
            for workers in (1, 2):
                cells = measure(model, workers, images, arguments.rounds)
                print(f"{network:<20}{workers:>8}" + "".join(f"{cell:>26}" for cell in cells), flush=True)


def measure(model: Path, workers: int, images: list[bytes], rounds: int) -> list[str]:
    """Measure both runtimes in turn.

    Args:
        model: folder of the model.
        workers: workers of each service.
        images: content of the files, one per request.
        rounds: how often each service gets all of them.

    Returns:
        One cell per column.
    """
    with ExitStack() as stack:
        services = [stack.enter_context(running_service(model, workers, "--runtime", name)) for name in RUNTIMES]
        cells = []
        for clients in (1, CLIENTS):
            latencies: dict[int, list[float]] = {process: [] for process, _ in services}
            costs: dict[int, list[float]] = {process: [] for process, _ in services}
            for _ in range(rounds):
                for process, port in services:
                    before = processor_seconds(process)
                    latencies[process] += predict_all(port, images, clients)
                    costs[process].append((processor_seconds(process) - before) / len(images))
            cells.append(row(*(1e3 * statistics.median(latencies[process]) for process, _ in services)))
            cells.append(row(*(1e3 * statistics.median(costs[process]) for process, _ in services)))
        return [*cells, row(*(worker_memory(process) for process, _ in services))]


def row(keras: float, onnx: float) -> str:
    """Two figures and their ratio."""
    return f"{keras:.1f} {onnx:.1f} {keras / onnx:.2f}"


def processor_seconds(process: int) -> float:
    """Processor time of a process and of all processes below it."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(processor_seconds, children(process)))


def worker_memory(process: int) -> float:
    """Resident memory of the largest worker, MiB, without its decoders."""
    sizes = [Path(f"/proc/{child}/statm").read_text().split()[1] for child in children(process)]
    return max(map(int, sizes)) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def children(process: int) -> list[int]:
    """Ids of the processes that a process, in any of its threads, has started."""
    lists = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for path in lists for child in path.read_text().split()]


if __name__ == "__main__":
    main()
