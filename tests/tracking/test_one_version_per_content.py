"""One content, one version: wherever its files are, whichever run has made them again, and whoever else registers."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cxr.models.metadata import ModelMetadata
from cxr.models.stored_files import record_digests
from cxr.promotion.log import PromotionEntry
from cxr.tracking.promotion_log import PromotionLog
from cxr.tracking.registry_reader import missing_files
from cxr.tracking.store import Store
from support.loopback import MlflowServer
from support.model_folders import ModelFolders, write_models
from support.registrations import begin, ensure, read_line, start_registration, states, versions, write_line
from support.sweeps import exhaustive

ROUNDS = 3


def same_content_elsewhere(folders: ModelFolders, root: Path, **changes: str) -> ModelFolders:
    """The files as another machine restores them, with other times, and with changes to the metadata."""
    shutil.copytree(folders.models, root / "models")
    shutil.copytree(folders.evaluations, root / "evaluations")
    for card in root.rglob("card.json"):
        metadata = ModelMetadata.read(card.parent)
        ModelMetadata(**{**vars(metadata), **changes}).write(card.parent)
    for path in root.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return ModelFolders(root / "models", root / "evaluations", folders.images)


def test_files_restored_elsewhere_by_another_pipeline_run_are_the_same_version(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path, pipeline_run="by hand")
    run_id = begin(folders, store, "restored")
    version, _ = ensure(folders, store, "restored", run_id)
    elsewhere = same_content_elsewhere(folders, tmp_path / "pod", pipeline_run="of the schedule")
    assert ensure(elsewhere, store, "restored", run_id) == (version, False)
    other_code = same_content_elsewhere(folders, tmp_path / "other", git_commit="d" * 40)
    assert ensure(other_code, store, "restored", run_id)[1]


def test_an_ensemble_fitted_again_by_another_pipeline_run_is_the_same_version(
    half_lungs: tuple[ModelFolders, Path], store: Store, tmp_path: Path
) -> None:
    from cxr.promotion.candidates import RunFolders, find_candidates
    from cxr.tracking.versions import ensure_registered_model, ensure_version

    folders, ensemble = half_lungs
    ensure_registered_model(store, "ensemble")
    run_id = store.client.create_run(store.experiment_id("ensemble")).info.run_id
    numbers = []
    for pipeline_run in ("by hand", "of the schedule"):
        copy = tmp_path / pipeline_run
        shutil.copytree(ensemble, copy)
        for card in copy.rglob("card.json"):
            ModelMetadata(**{**vars(ModelMetadata.read(card.parent)), "pipeline_run": pipeline_run}).write(card.parent)
            record_digests(card.parent)
        run = RunFolders(folders.models, folders.evaluations, folders.splits, ensemble=copy, include=["weighted"])
        (candidate,) = find_candidates(run)
        numbers.append(int(ensure_version(store, "ensemble", candidate, run_id)[0].version))
    assert numbers == [1, 1]


def test_processes_that_create_a_version_at_the_same_time_end_with_one(server: MlflowServer, tmp_path: Path) -> None:
    folders, store = write_models(tmp_path), Store(server.uri)
    names = [f"created at once {number}" for number in range(ROUNDS)]
    run_id = begin(folders, store, names[0])
    for name in names[1:]:
        store.client.create_registered_model(name)
    both_folders = (folders, same_content_elsewhere(folders, tmp_path / "pod", pipeline_run="of the schedule"))
    processes = [start_registration(copy, server.uri, run_id, *names, how="together") for copy in both_folders]
    for name in names:
        assert [read_line(process) for process in processes] == ["ready to create"] * 2
        for process in processes:
            write_line(process)
        outputs = [read_line(process).split() for process in processes]
        (version,) = versions(store, name)
        assert sorted(outputs) == [[version.version, "False"], [version.version, "True"]]
        assert missing_files(store, version) == ()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    for name in names:  # one process may begin the next round while the other one still finishes this one's model
        ensure(folders, store, name, run_id)
    assert states(store, names[0]) == ["READY"] * ROUNDS


def leave_copy(folders: ModelFolders, store: Store, name: str) -> tuple[str, Any]:
    """Register a model, and leave a second version of the same content as a killed process does.

    Returns:
        MLflow's id of the run, and the first version.
    """
    run_id = begin(folders, store, name)
    process = start_registration(folders, store.uri, run_id, name, how="killed")
    assert read_line(process) == "ready to create"
    first, _ = ensure(folders, store, name, run_id)
    write_line(process)
    process.communicate(timeout=60)
    return run_id, first


@pytest.mark.parametrize("use", ["none", "alias", *exhaustive("pinned", "log")])
def test_a_copy_left_by_a_killed_process_is_deleted_unless_somebody_uses_it(
    server: MlflowServer, tmp_path: Path, use: str
) -> None:
    folders, store, name = write_models(tmp_path), Store(server.uri), f"copy in use {use}"
    run_id, first = leave_copy(folders, store, name)
    copy, _ = sorted(versions(store, name), key=lambda version: -int(version.version))
    if use == "alias":
        store.client.set_registered_model_alias(name, "champion", copy.version)
    elif use == "pinned":
        store.client.set_model_version_tag(name, copy.version, "pinned", "true")
    elif use == "log":
        entry = PromotionEntry(1, datetime.now(UTC), "run", "test", {}, {"challenger": copy.version}, (), copy.version)
        assert PromotionLog(store, name).append(entry)
    chosen, is_new = ensure(folders, store, name, run_id)
    assert not is_new
    assert [version.version for version in versions(store, name)] == [chosen.version]
    assert chosen.version == (first if use == "none" else copy).version
    assert missing_files(store, chosen) == ()
    assert states(store, name) == ["READY"]
    assert ensure(folders, store, name, run_id) == (chosen, False)


def test_copies_that_are_both_in_use_stay(server: MlflowServer, tmp_path: Path) -> None:
    folders, store, name = write_models(tmp_path), Store(server.uri), "copies in use"
    run_id, first = leave_copy(folders, store, name)
    for number, alias in ((first.version, "champion"), ("2", "challenger")):
        store.client.set_registered_model_alias(name, alias, number)
    assert ensure(folders, store, name, run_id)[0].version == first.version
    assert len(versions(store, name)) == 2
