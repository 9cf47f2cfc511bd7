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

pytestmark = pytest.mark.integration


def dvc(folder: Path, *words: str) -> str:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": programs, "DVC_NO_ANALYTICS": "1", "GIT_CEILING_DIRECTORIES": "/"}
    command = [sys.executable, "-m", "dvc", *words]
    answer = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-2000:]
    return answer.stdout + answer.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_data_pushed_by_one_person_are_pulled_by_another(
    bucket: str, object_store: ObjectStore, phantom_folder: Path, tmp_path: Path
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    shutil.copytree(phantom_folder, one / "data")
    dvc(one, "init", "--no-scm")
    dvc(one, "remote", "add", "--default", "team", f"s3://{bucket}/dvc")
    dvc(one, "remote", "modify", "team", "endpointurl", object_store.url)
    dvc(one, "add", "data")
    dvc(one, "push")
    images = len(list(phantom_folder.rglob("*.jpeg")))
    assert len([path for path in (object_store.folder / bucket / "dvc").rglob("*") if path.is_file()]) > images
    assert "up to date" in dvc(one, "push")

    (other / ".dvc").mkdir(parents=True)
    shutil.copy(one / ".dvc" / "config", other / ".dvc" / "config")
    shutil.copy(one / "data.dvc", other / "data.dvc")
    dvc(other, "pull")
    assert contents(other / "data") == contents(phantom_folder)


def test_fetch_brings_a_data_set_from_the_store(
    bucket: str, object_store: ObjectStore, phantom_folder: Path, tmp_path: Path
) -> None:
    wanted = contents(phantom_folder)
    for key, body in wanted.items():
        object_store.client().put_object(Bucket=bucket, Key=f"sets/{key}", Body=body)
    assert fetch(f"s3://{bucket}/sets", tmp_path) == 0
    brought = contents(tmp_path / "data")
    assert {key: brought.get(key) for key in wanted if key.endswith(".jpeg")} == {
        key: body for key, body in wanted.items() if key.endswith(".jpeg")
    }


def test_a_wrong_key_brings_nothing(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not the secret")
    assert fetch(f"s3://{bucket}/sets", tmp_path) == 1
    assert "expected credentials that the store knows" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def fetch(source: str, folder: Path) -> int:
    return main(["fetch", "--source", source, "--data", f"{folder}/data", "--downloads", f"{folder}/downloads"])
