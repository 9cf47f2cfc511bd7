"""Puts back the files of DVC that a kill of ``dvc repro`` has cut off; ``make run`` and ``make repro`` call it.

DVC writes ``dvc.lock`` and ``.dvc/tmp/rwlock`` in place. A kill in that moment leaves a part of them, which DVC refuses
from then on. This module keeps a copy of each whole ``dvc.lock``, and puts it back in place of one that is cut off.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cxr.errors import CxrError, DataError
from cxr.files import whole_file

log = logging.getLogger(__name__)

LOCK_FILE = "dvc.lock"
COPIES = Path(".dvc/tmp/whole-locks")
"""Folder, in the project, of the last whole ``dvc.lock`` of each graph."""

_TEMPORARY = Path(".dvc/tmp")
_MERGE_CONFLICT = "<<<<<<< "


def recover(project: Path) -> None:
    """Put back what a killed DVC has cut off, and keep a copy of what is whole.

    A ``dvc.lock`` that is cut off is replaced by its last copy, or else by that of the last commit; it is kept beside
    the copies. An ``rwlock`` that is cut off is removed, as DVC needs none. Nothing is done while DVC writes, and
    nothing is done to a file in which git has marked a conflict.

    Args:
        project: folder with ``.dvc``; the locks are those in it and in its folders.

    Raises:
        DataError: if a ``dvc.lock`` is cut off and there is no whole one; the text says what to run.
    """
    if not (project / ".dvc").is_dir():
        return
    locks = [lock for lock in (project / LOCK_FILE, *sorted(project.glob(f"*/{LOCK_FILE}"))) if lock.is_file()]
    if all(_is_kept(lock, project) for lock in locks) and not _is_broken(project / _TEMPORARY / "rwlock"):
        return  # the usual case imports neither DVC nor NumPy, which take half a second
    (project / _TEMPORARY).mkdir(exist_ok=True)
    with _no_dvc_writes(project / _TEMPORARY) as is_free:
        if not is_free:
            log.warning("another dvc is running: its lock files are left as they are")
            return
        _remove_broken_rwlock(project / _TEMPORARY / "rwlock")
        for lock in locks:
            if not _is_kept(lock, project):
                _keep_or_restore(lock, project)


def _is_kept(lock: Path, project: Path) -> bool:
    """Whether a lock is the same as its copy, which is whole."""
    copy = project / COPIES / lock.relative_to(project)
    return copy.is_file() and copy.read_bytes() == lock.read_bytes()


def _keep_or_restore(lock: Path, project: Path) -> None:
    name = lock.relative_to(project)
    copy = project / COPIES / name
    content = lock.read_bytes()
    if _is_whole(content):
        _write(copy, content)
        return
    if _MERGE_CONFLICT.encode() in content:
        return
    from cxr.lineage.provenance import run_git  # NumPy comes with it

    committed = run_git(project, "show", f"HEAD:./{name.as_posix()}")
    choices = {
        "its last whole copy": copy.read_bytes() if copy.is_file() else b"",
        "that of the last commit": f"{committed or ''}\n".encode(),
    }
    for origin, choice in choices.items():
        if _is_whole(choice):
            cut_off = copy.with_name(f"{copy.name}.cut-off")
            _write(cut_off, content)
            _write(lock, choice)
            log.warning(
                "%s was cut off, probably by a kill of dvc: %s is put back, and the part that was there is kept as %s",
                name, origin, cut_off.relative_to(project),
            )  # fmt: skip
            return
    raise DataError(
        f"expected a whole {name}, received one that was cut off, and neither a copy nor git has a whole one; run `rm "
        f"{name}` and then `dvc repro`: stages whose results are in DVC's cache take no time"
    )


def _is_whole(content: bytes) -> bool:
    """Read a lock as DVC does. DVC ends each with a line feed, so one without it was cut off inside of a line."""
    from dvc.exceptions import DvcException
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import parse_yaml
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(content.decode("utf-8"), LOCK_FILE))
    except (UnicodeDecodeError, DvcException, Invalid):
        return False
    return content.endswith(b"\n")


def _is_broken(rwlock: Path) -> bool:
    """Whether DVC's table of the files in use is there and cut off."""
    try:
        json.loads(rwlock.read_bytes())
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return False


def _remove_broken_rwlock(rwlock: Path) -> None:
    if _is_broken(rwlock):
        rwlock.unlink()
        log.warning("%s was cut off, probably by a kill of dvc: it is removed, dvc makes a new one", rwlock.name)


@contextmanager
def _no_dvc_writes(folder: Path) -> Iterator[bool]:
    """Hold the locks under which DVC writes these files; the value is False if another process has them."""
    from dvc.lock import LockError, make_lock

    with ExitStack() as stack:
        try:
            for name in ("lock", "rwlock.lock"):
                stack.enter_context(make_lock(str(folder / name), tmp_dir=str(folder)))
        except LockError:
            stack.close()
            yield False
        else:
            yield True


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(content)
        if path.exists():
            shutil.copymode(path, partial)


def main() -> int:
    """Recover the project in the current folder.

    Returns:
        Exit status.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("zc.lockfile").setLevel(logging.CRITICAL)  # it logs each failed try
    try:
        recover(Path())
    except CxrError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
