"""The metrics of several workers, read while one of them starts."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict

from cxr.serving.rest.metrics import ServiceMetrics
from cxr.serving.rest.settings import METRICS_FOLDER_VARIABLE


def test_a_worker_that_is_making_its_file_does_not_fail_the_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "counter_77.db"
    file.touch()  # as prometheus_client makes it, before it gives it a length

    def start() -> None:
        time.sleep(0.03)
        MmapedDict(str(file)).write_value('["requests", "requests_total", {}, "Requests."]', 3.0, 0.0)

    monkeypatch.setenv(METRICS_FOLDER_VARIABLE, str(tmp_path))
    worker = threading.Thread(target=start)
    worker.start()
    try:
        ServiceMetrics().export()  # answers, instead of an error of the library
    finally:
        worker.join()
    assert b"requests_total 3.0" in ServiceMetrics().export()
