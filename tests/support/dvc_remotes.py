"""Remotes as DVC fills them."""

from __future__ import annotations

from pathlib import Path

from cxr.data.dvc_hashes import pointer_md5
from support.s3_server import S3Server


def push(root: Path) -> tuple[str, Path]:
    """Push the folder ``data`` below ``root`` with DVC; returns the md5 of the version and the remote folder."""
    from dvc.repo import Repo

    with Repo.init(str(root), no_scm=True) as repository:
        repository.add([str(root / "data")])
        with repository.config.edit() as settings:
            settings["remote"] = {"team": {"url": str(root / "remote")}}
    with Repo(str(root)) as repository:
        repository.push(remote="team")
    version = pointer_md5(root / "data.dvc")
    assert version is not None
    return version, root / "remote"


def upload(remote: Path, server: S3Server, prefix: str) -> str:
    """Copy a remote in a folder to an object store; returns its address."""
    for path in remote.rglob("*"):
        if path.is_file():
            server.put(f"{prefix}/{path.relative_to(remote).as_posix()}", path.read_bytes())
    return f"s3://{server.bucket}/{prefix}"
