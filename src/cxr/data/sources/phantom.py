"""The built-in data set: phantoms, drawn on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from cxr.data.fetching.source import DataSource
from cxr.files import scratch_folder


class PhantomSource(DataSource):
    """Draws the built-in phantoms; no network is needed."""

    scheme: ClassVar[str] = "phantom"
    spellings: ClassVar[tuple[str, ...]] = ("phantom",)
    unused_parameters: ClassVar[frozenset[str]] = frozenset(
        {"expect", "data_name", "data_kind", "data_licence", "endpoint_url"}
    )

    @classmethod
    def accepts(cls, address: str) -> bool:
        """Accept the name alone."""
        return address == cls.scheme

    def fill(self, folder: Path) -> None:
        """Draw the phantoms and write their card; for an index, the images are uploaded."""
        if not self.request.index:
            self._draw(folder)
            return
        from cxr.data.fetching.indexing import index_folder

        with scratch_folder() as scratch:
            self._draw(scratch)
            index_folder(scratch, folder, self.request)

    def _draw(self, folder: Path) -> None:
        from cxr.data.phantom.dataset import draw_dataset

        draw_dataset(folder, images=self.request.phantom_images, seed=self.request.phantom_seed)
