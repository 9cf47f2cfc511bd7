"""The kinds of sources are found by their files."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cxr.data.sources.dicomweb import DicomwebSource
from cxr.data.sources.dvc_remote import DvcRemoteSource
from cxr.data.sources.kaggle import KaggleSource
from cxr.data.sources.local_path import LocalPathSource
from cxr.data.sources.opening import open_source, source_kind
from cxr.data.sources.phantom import PhantomSource
from cxr.data.sources.registry import list_spellings
from cxr.data.sources.s3 import ObjectStoreSource
from support.fetch_requests import fetch_request


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("dicomweb+https://host/dicom-web", DicomwebSource),
        ("dicomweb+http://127.0.0.1:8042/dicom-web", DicomwebSource),
        ("phantom", PhantomSource),
        ("kaggle", KaggleSource),
        ("kaggle:owner/name", KaggleSource),
        ("s3://bucket/prefix", ObjectStoreSource),
        ("folder/archive.tar", LocalPathSource),
        ("phantom:x", LocalPathSource),
        ("s3", LocalPathSource),
        ("registry", LocalPathSource),
        ("dvc_remote", LocalPathSource),
        ("", LocalPathSource),
    ],
)
def test_an_address_names_its_kind_of_source(address: str, kind: type) -> None:
    assert source_kind(address) is kind


@pytest.mark.parametrize("address", ["s3://bucket/prefix", "folder"])
def test_a_version_of_the_data_comes_from_a_dvc_remote(address: str) -> None:
    request = fetch_request(address, data_version=f"{'0' * 32}.dir")
    assert type(open_source(request)) is DvcRemoteSource


def test_all_spellings_are_listed() -> None:
    assert list_spellings() == "dicomweb+https://host/dicom-web, kaggle, kaggle:owner/name, phantom, s3://bucket/prefix"


def test_finding_the_kinds_loads_no_library() -> None:
    libraries = {"numpy", "boto3", "kagglehub", "requests", "cv2", "dvc", "tqdm"}
    code = (
        "import sys; from cxr.data.sources.registry import list_spellings; list_spellings(); "
        f"print(*(sys.modules.keys() & {libraries}))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == []
