"""Work on single files that is done once for each content, whenever and under whatever name the file comes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from cxr.images.result_packs import ResultFolder, limit_size

Result = TypeVar("Result")

_SETTLED_NANOSECONDS = 2_000_000_000
"""Age of a file from which its times tell a later change: two changes in one tick of the clock have the same time."""


@dataclass(frozen=True)
class KeptResults(Generic[Result]):
    """Results of one kind of work on files, by the content of the file.

    Attributes:
        digests: sha256 of files by their times.
        results: results by sha256.
        to_bytes: writes a result; None for one that shall not be kept.
        from_bytes: reads what ``to_bytes`` wrote.
    """

    digests: ResultFolder
    results: ResultFolder
    to_bytes: Callable[[Result], bytes | None]
    from_bytes: Callable[[bytes], Result]

    def compute(
        self,
        path: Path,
        read: Callable[[Path], bytes],
        work: Callable[[bytes], Result],
        *,
        variant: str = "",
        check: Callable[[str], None] | None = None,
    ) -> tuple[str, Result]:
        """Give the result for a file.

        The file is not read if it was read before and has the same device, inode, size and times. One of these is
        the time at which the kernel saw the last change (``ctime``), which no program can set. The work is done only
        if the content is new.

        Args:
            path: the file.
            read: reads it.
            work: computes the result from its content.
            variant: what else the result depends on, such as the ending of the file's name.
            check: called with the sha256 before the work; it raises an error for a content that is not expected.

        Returns:
            The hexadecimal sha256 of the content, and the result.
        """
        state = _state(path)
        known_digest = None if state is None else self.digests.find(state)
        if known_digest is not None:
            digest = known_digest.decode()
            if check is not None:
                check(digest)
            stored = self.results.find(digest + variant)
            if stored is not None:
                return digest, self.from_bytes(stored)
        content = read(path)
        digest = hashlib.sha256(content).hexdigest()
        if state is not None and _state(path) == state:
            self.digests.keep(state, digest.encode())
        if check is not None:
            check(digest)
        stored = self.results.find(digest + variant)
        if stored is not None:
            return digest, self.from_bytes(stored)
        result = work(content)
        stored = self.to_bytes(result)
        if stored is not None:
            self.results.keep(digest + variant, stored)
        return digest, result


class ResultCache:
    """Keeps results between runs in a folder of limited size.

    A result is kept under the version of the code that computed it and everything else that it depends on. It is never
    found under another version.
    """

    def __init__(
        self,
        folder: Path | None,
        max_bytes: int,
        code_version: Callable[[str], str],
        others: Sequence[Path] = (),
    ) -> None:
        """Open the cache.

        Args:
            folder: the folder; it need not exist. None keeps nothing.
            max_bytes: largest size of the folder after the work; 0 keeps nothing.
            code_version: name of a module to a text that changes when its results may change.
            others: folders of other caches, which are only read, such as those that shards wrote. What is found in
                them is kept in ``folder``, too.
        """
        self._root = folder if max_bytes else None
        self._others = tuple(others)
        self._max_bytes = max_bytes
        self._code_version = code_version
        self._folders: dict[str, ResultFolder] = {}
        self._digests = self._open("sha256")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the new results, also after an error, and remove those that were not used for the longest time."""
        for folder in self._folders.values():
            folder.save()
            folder.mark_used_packs()
        if self._root is not None:
            limit_size(self._root, self._max_bytes)

    def results(
        self,
        module: str,
        kind: str,
        *,
        key: str,
        to_bytes: Callable[[Result], bytes | None],
        from_bytes: Callable[[bytes], Result],
    ) -> KeptResults[Result]:
        """Open the results of one kind of work.

        Args:
            module: full name of the module that computes them.
            kind: what they are; a name of a folder.
            key: text that says all that a result depends on besides code and content.
            to_bytes: writes a result; None for one that shall not be kept.
            from_bytes: reads what ``to_bytes`` wrote.

        Returns:
            The results.
        """
        if self._root is None and not self._others:
            return KeptResults(self._digests, self._digests, to_bytes, from_bytes)
        version = hashlib.sha256(f"{self._code_version(module)}\n{key}".encode()).hexdigest()[:16]
        return KeptResults(self._digests, self._open(f"{kind}-{version}"), to_bytes, from_bytes)

    def _open(self, name: str) -> ResultFolder:
        if name not in self._folders:
            folder = None if self._root is None else self._root / name
            self._folders[name] = ResultFolder(folder, [other / name for other in self._others])
        return self._folders[name]


NO_CACHE = ResultCache(None, 0, str)
"""For work whose results are not kept."""


def _state(path: Path) -> str | None:
    """What tells a file from an earlier state of it; None if it was changed just now, or cannot be seen."""
    try:
        status = path.lstat()
    except OSError:
        return None
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    if not 0 <= changed <= time.time_ns() - _SETTLED_NANOSECONDS:
        return None
    return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
