"""An archive that speaks DICOMweb. Its images have no class folders, so a table says their labels and patients."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cxr.data.fetching.source import ListedSource
from cxr.errors import SourceError, TransferError

if TYPE_CHECKING:
    import pandas as pd

    from cxr.storage.contents import SourceContents
    from cxr.storage.dicomweb import ArchivedImage, DicomwebArchive

STUDY, LABEL, PATIENT = "StudyInstanceUID", "label", "patient"
"""Columns of the table: a study, the class of its images, and a pseudonym of the patient."""
_PREFIX = "dicomweb+"


class DicomwebSource(ListedSource):
    """The CR and DX images of the studies in a table."""

    scheme: ClassVar[str] = "dicomweb+https"
    spellings: ClassVar[tuple[str, ...]] = ("dicomweb+https://host/dicom-web",)
    unused_parameters: ClassVar[frozenset[str]] = frozenset({"phantom_images", "phantom_seed", "endpoint_url"})

    @classmethod
    def accepts(cls, address: str) -> bool:
        """Accept addresses of HTTP and HTTPS after the prefix."""
        return address.startswith((f"{_PREFIX}http://", f"{_PREFIX}https://"))

    @property
    def local_path(self) -> Path | None:
        """The table of labels: where it changes, the images are fetched again."""
        labels = self.request.labels
        return labels if labels is not None and labels.is_file() else None

    def open(self) -> SourceContents:
        """Fetch the images that the folder of downloads does not hold yet, one by one, and list that folder."""
        from cxr.storage.contents import FolderContents
        from cxr.storage.dicomweb import DicomwebArchive

        table = self._read_labels()
        archive = DicomwebArchive(self.request.source.removeprefix(_PREFIX))
        images_of_paths: dict[Path, tuple[ArchivedImage, str]] = {}
        empty = 0
        for study, label, patient in table.itertuples(index=False, name=None):
            images = archive.find_images(study=study, since=None)
            empty += not images
            images_of_paths |= {self._folder / label / f"{image.digest}.dcm": (image, patient) for image in images}
        if empty:
            raise SourceError(
                f"expected CR or DX images in each study of labels, received {empty:,} studies without from "
                f"source={self.label}; remove their rows"
            )
        self._remove_others(images_of_paths)
        self._fetch_missing(archive, {path: image for path, (image, _) in images_of_paths.items()})
        self._write_patients({path: patient for path, (_, patient) in images_of_paths.items()})
        return FolderContents(self._folder, self.label)

    def remove_downloads(self) -> None:
        """Remove the images: the data folder holds them now."""
        import shutil

        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _folder(self) -> Path:
        return self.request.downloads / "dicomweb"

    def _read_labels(self) -> pd.DataFrame:
        """Read the table; no message repeats a UID or a patient."""
        import pandas as pd

        from cxr.data.dataset import CLASSES
        from cxr.images.dicom.elements import is_uid

        columns = [STUDY, LABEL, PATIENT]
        labels = self.request.labels
        if labels is None:
            raise SourceError(
                f"expected labels with source={self.label}, because an archive has no class folders, received none; "
                f"give --labels TABLE.csv with the columns {', '.join(columns)}"
            )
        try:
            table = pd.read_csv(labels, dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise SourceError(f"expected a table in CSV, received labels={labels} ({type(error).__name__})") from None
        missing = [column for column in columns if column not in table]
        if missing or table.empty:
            raise SourceError(
                f"expected rows with the columns {', '.join(columns)}, received labels={labels} "
                f"{'without ' + ', '.join(missing) if missing else 'without a row'}"
            )
        wrong = {
            f"a {LABEL} other than {' and '.join(CLASSES)}": ~table[LABEL].isin(CLASSES),
            f"no valid {STUDY}": ~table[STUDY].map(is_uid),
            f"a {STUDY} of another row": table[STUDY].duplicated(),
            f"an empty {PATIENT}": table[PATIENT] == "",
        }
        problems = [f"{int(rows.sum()):,} rows with {problem}" for problem, rows in wrong.items() if rows.any()]
        if problems:
            raise SourceError(f"expected one row per study, received labels={labels} with {'; '.join(problems)}")
        return table[columns]

    def _fetch_missing(self, archive: DicomwebArchive, images: dict[Path, ArchivedImage]) -> None:
        from tqdm import tqdm

        from cxr.files import whole_file
        from cxr.images.decoding import MAX_BYTES

        total = 0
        for path, image in tqdm(images.items(), unit=" images", desc=archive.name, disable=None):
            if not path.exists():
                try:
                    content = archive.fetch(image, MAX_BYTES)
                except (FileNotFoundError, OverflowError) as error:
                    raise TransferError(
                        f"expected every image of the studies, received source={self.label} without one ({error}); "
                        "run the same command again"
                    ) from None
                with whole_file(path) as partial:
                    partial.write_bytes(content)
            total += path.stat().st_size
            if total > self.request.max_bytes:
                raise SourceError(
                    f"expected at most max_gigabytes={self.request.max_gigabytes:g}, received more from "
                    f"source={self.label}; raise max_gigabytes if that is right"
                )

    def _remove_others(self, images_of_paths: dict[Path, tuple[ArchivedImage, str]]) -> None:
        """Remove what an earlier fetch with another table has left."""
        for path in self._folder.rglob("*"):
            if path.is_file() and path not in images_of_paths:
                path.unlink()

    def _write_patients(self, patients: dict[Path, str]) -> None:
        from cxr.files import PATIENTS_FILE

        with (self._folder / PATIENTS_FILE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["path", PATIENT])
            writer.writerows([path.relative_to(self._folder).as_posix(), patient] for path, patient in patients.items())
