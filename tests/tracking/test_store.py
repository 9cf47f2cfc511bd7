"""One object stands for a store: its addresses, its lock, and no MLflow before it is used."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cxr.errors import MissingInputError, RegistryError
from cxr.tracking.store import Store

HOLDER = """
import sys, time
from cxr.tracking.store import Store
with Store(sys.argv[1]).lock():
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_local_store_keeps_its_artifacts_beside_its_file_wherever_a_process_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("sqlite:///mlflow.db")
    monkeypatch.chdir("/")
    assert (store.address, store.artifact_location) == (f"sqlite:///{tmp_path}/mlflow.db", f"{tmp_path}/mlruns")
    assert not store.is_server and store.answers()


def test_a_server_decides_itself_about_its_artifacts_and_needs_no_lock() -> None:
    store = Store("https://mlflow.example.org")
    assert store.is_server and store.file is None and store.artifact_location is None
    with store.lock():
        pass


def test_mlflow_is_not_imported_before_the_store_is_used() -> None:
    code = "import sys; from cxr.tracking.store import Store; Store('sqlite:///none.db').answers(); print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "cxr.tracking.store" in output.split() and "mlflow" not in output.split()


@pytest.mark.parametrize("uri", ["", "sqlite:///{folder}/none.db"])
def test_a_caller_that_only_reads_creates_no_store(tmp_path: Path, uri: str) -> None:
    with pytest.raises(MissingInputError, match="run `cxr register`, or name another store"):
        Store(uri.format(folder=tmp_path)).connect_existing()
    assert not list(tmp_path.iterdir())


def test_a_thread_may_take_the_lock_again_through_another_object_and_others_wait(tmp_path: Path) -> None:
    uri, events = f"sqlite:///{tmp_path}/mlflow.db", list[str]()

    def take_lock() -> None:
        with Store(uri).lock():
            events.append("second thread")

    with Store(uri).lock(), Store(uri).lock():
        thread = threading.Thread(target=take_lock)
        thread.start()
        thread.join(0.5)
        events.append("first thread")
    thread.join(30)
    assert events == ["first thread", "second thread"]


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with subprocess.Popen([sys.executable, "-c", HOLDER, uri], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        process.send_signal(signal.SIGKILL)
    start = time.monotonic()
    with Store(uri).lock():
        assert time.monotonic() - start < 10


def test_a_folder_in_which_no_lock_can_be_taken_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db.lock").mkdir()
    with pytest.raises(RegistryError, match=rf"{tmp_path}/mlflow.db'.*make its folder writable.*or use a server"):
        Store(f"sqlite:///{tmp_path}/mlflow.db").connect()
