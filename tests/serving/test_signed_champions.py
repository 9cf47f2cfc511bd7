"""A service that asks for signatures goes on with its model when an unsigned version becomes champion."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cxr.errors import UnverifiedVersionError
from cxr.serving.model_provider import AliasModelProvider
from cxr.serving.model_source import registry_source
from cxr.tracking.store import Store
from cxr.tracking.version_evidence import sign_version
from support.signing_keys import write_keys

if TYPE_CHECKING:
    from conftest import Registry


def test_an_unsigned_champion_is_reported_and_answers_once_it_is_signed(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = write_keys(tmp_path, "key")
    store = Store(registry.uri, trusted_keys=keys.trusted)
    with pytest.raises(UnverifiedVersionError, match="received an unsigned version: nothing is loaded"):
        AliasModelProvider(store, registry.name, "champion", fallback=None)
    sign_version(Store(registry.uri), registry.name, "1", keys.signing)
    provider = AliasModelProvider(store, registry.name, "champion", fallback=None)
    registry.set_alias("champion", "2")
    with caplog.at_level(logging.WARNING, "cxr"):
        assert not provider.reload()
    assert provider.current.version == "1"
    assert "version 2 of pneumonia-classifier with a signature" in caplog.text
    assert "received an unsigned version" in str(provider.problem)
    assert str(provider.problem).endswith("version 1 goes on")
    sign_version(Store(registry.uri), registry.name, "2", keys.signing)
    assert provider.reload() and provider.current.version == "2" and provider.problem is None


def test_what_an_unchecked_version_predicted_is_not_taken_for_the_answer_of_a_checked_one(
    registry: Registry, tmp_path: Path
) -> None:
    keys = write_keys(tmp_path, "key").trusted
    unchecked, checked = (
        registry_source(store, registry.name, version=None, alias="champion", fallback=None).identity
        for store in (Store(registry.uri), Store(registry.uri, trusted_keys=keys))
    )
    assert unchecked != checked
