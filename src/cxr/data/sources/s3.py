"""Object storage that speaks S3: images below a prefix, or one archive with the images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from cxr.data.fetching.source import ListedSource
from cxr.errors import SourceError

if TYPE_CHECKING:
    from cxr.storage.contents import SourceContents


class ObjectStoreSource(ListedSource):
    """Objects below ``s3://bucket/prefix``."""

    scheme: ClassVar[str] = "s3"
    spellings: ClassVar[tuple[str, ...]] = ("s3://bucket/prefix",)
    can_hold_versions: ClassVar[bool] = True
    keeps_images: ClassVar[bool] = True

    @classmethod
    def accepts(cls, address: str) -> bool:
        """Accept addresses that begin with ``s3://``."""
        return address.startswith("s3://")

    def open(self) -> SourceContents:
        """List the objects, or the only archive among them if no image and no class folder lies beside it."""
        from cxr.data.fetching.archives import is_archive, open_archive
        from cxr.data.fetching.layout import lies_in_class_folder
        from cxr.images.file_types import is_named_as_image
        from cxr.storage.contents import GIGABYTE, shorten_list
        from cxr.storage.object_store import ObjectStoreContents

        source, max_bytes = self.request.source, self.request.max_bytes
        objects = ObjectStoreContents(source, self.request.downloads / "s3", endpoint_url=self.request.endpoint_url)
        has_images = any(is_named_as_image(entry.path) or lies_in_class_folder(entry.path) for entry in objects.entries)
        archives = [entry for entry in objects.entries if is_archive(entry.path.name)]
        if has_images or not archives:
            return objects
        if len(archives) > 1:
            names = shorten_list([entry.path for entry in archives])
            raise SourceError(f"expected one archive, received source={source} with {names}; give the address of one")
        archive = archives[0]
        if archive.bytes > max_bytes:
            raise SourceError(
                f"expected at most max_gigabytes={max_bytes / GIGABYTE:g}, received source={source} with an "
                f"archive of {archive.bytes / GIGABYTE:,.1f} GB; raise max_gigabytes if that is right"
            )
        file = objects.download([archive.path])[archive.path]
        return open_archive(file, archive.path.name, max_bytes=max_bytes)
