"""Work on single images that is done once for each content, whenever and under whatever name the image comes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from cxr.images.raw_images import RawImages
from cxr.images.result_packs import ResultFolder, limit_size

Result = TypeVar("Result")


@dataclass(frozen=True)
class KeptResults(Generic[Result]):
    """Results of one kind of work on images, by the content of the image.

    Attributes:
        digests: sha256 of images by their states.
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
        images: RawImages,
        name: str,
        work: Callable[[bytes], Result],
        *,
        max_bytes: int | None = None,
        variant: str = "",
        check: Callable[[str], None] | None = None,
    ) -> tuple[str, Result]:
        """Give the result for an image.

        The image is not read if its sha256 is known, or if it was read before and has the same state. The work is done
        only if the content is new.

        Args:
            images: the raw images.
            name: name of one of them.
            work: computes the result from its content.
            max_bytes: largest image that is loaded; None for no limit.
            variant: what else the result depends on, such as the ending of the file's name.
            check: called with the sha256 before the work; it raises an error for a content that is not expected.

        Returns:
            The hexadecimal sha256 of the content, and the result.

        Raises:
            ImageError: if the image cannot be read.
            SourceError: if the place of the images fails.
        """
        state = images.state(name)
        digest = images.known_sha256(name) or self._digest_in(state)
        if digest is not None:
            if check is not None:
                check(digest)
            stored = self.results.find(digest + variant)
            if stored is not None:
                return digest, self.from_bytes(stored)
        content = images.read(name, max_bytes=max_bytes)
        digest = hashlib.sha256(content).hexdigest()
        if state is not None and images.state(name) == state:
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

    def _digest_in(self, state: str | None) -> str | None:
        """Digest of an image that was read in this state; None if it was not."""
        digest = None if state is None else self.digests.find(state)
        return None if digest is None else digest.decode()


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
