"""Data and their versions in an S3 store: DVC to and from it, and `cxr fetch` from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cxr.cli.main import main
from support.servers import ObjectStore

# They need an S3 store; in `make test`, tests/data/sources/test_dvc_remote.py fetches what was pushed.
pytestmark = [pytest.mark.integration, pytest.mark.exhaustive]


def dvc(folder: Path, *arguments: str) -> str:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": programs, "DVC_NO_ANALYTICS": "1", "GIT_CEILING_DIRECTORIES": "/"}
    command = [sys.executable, "-m", "dvc", *arguments]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]
    return process.stdout + process.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_data_pushed_by_one_person_can_be_pulled_by_another(
    bucket: str, object_store: ObjectStore, phantom_folder: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    shutil.copytree(phantom_folder, first / "data")
    dvc(first, "init", "--no-scm")
    dvc(first, "remote", "add", "--default", "team", f"s3://{bucket}/dvc")
    dvc(first, "remote", "modify", "team", "endpointurl", object_store.url)
    dvc(first, "add", "data")
    dvc(first, "push")
    images = len(list(phantom_folder.rglob("*.jpeg")))
    assert len([path for path in (object_store.folder / bucket / "dvc").rglob("*") if path.is_file()]) > images
    assert "up to date" in dvc(first, "push")

    (second / ".dvc").mkdir(parents=True)
    shutil.copy(first / ".dvc" / "config", second / ".dvc" / "config")
    shutil.copy(first / "data.dvc", second / "data.dvc")
    dvc(second, "pull")
    assert contents(second / "data") == contents(phantom_folder)


def test_fetch_copies_a_data_set_from_the_store(
    bucket: str, object_store: ObjectStore, phantom_folder: Path, tmp_path: Path
) -> None:
    expected = contents(phantom_folder)
    for key, body in expected.items():
        object_store.client().put_object(Bucket=bucket, Key=f"sets/{key}", Body=body)
    assert fetch(f"s3://{bucket}/sets", tmp_path) == 0
    fetched = contents(tmp_path / "data")
    assert {key: fetched.get(key) for key in expected if key.endswith(".jpeg")} == {
        key: body for key, body in expected.items() if key.endswith(".jpeg")
    }


def test_a_wrong_key_fetches_nothing(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not the secret")
    assert fetch(f"s3://{bucket}/sets", tmp_path) == 1
    assert "expected credentials that the store knows" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def fetch(source: str, folder: Path) -> int:
    return main(["fetch", "--source", source, "--data", f"{folder}/data", "--downloads", f"{folder}/downloads"])
