"""Who may make the run of files that a store doesn't know: of several processes at once, one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cxr.tracking.run_data import known

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILES_TAG = "cxr.files"
"""Digest of the files that a run was made of."""
CLAIM_TAG = "cxr.claim"
"""The same, while the processes that want to make the run agree on one of them."""
STALE = 10.0
"""Seconds after which a claim that comes to nothing is that of a killed process."""


def claim(
    connected: MlflowClient, experiment: str, digest: str, *, name: str, started: int | None, tags: Mapping[str, str]
) -> str:
    """Find the run made of these files, or make it.

    A server has no lock. Everybody makes a run, marked as a claim, and looks around. Who sees a smaller id steps
    back. Who is alone makes the claim good. Who has the smallest id, but company, waits: the others either have
    looked before this claim was there, and make theirs good, or step back. Whoever finds a good one removes all
    other claims, also those that nobody answers for: a client that lost the answer to its request asks again.

    Args:
        connected: client of the store.
        experiment: id of the experiment.
        digest: digest of the files.
        name: name of the run.
        started: when the training began, in milliseconds since 1970; None for now.
        tags: tags that the run gets when it is made.

    Returns:
        MLflow's id of the run, the same for all processes.
    """
    from mlflow.exceptions import MlflowException

    def claims() -> set[str]:
        found = connected.search_runs([experiment], f"tags.`{CLAIM_TAG}` = '{digest}'")
        return {str(run.info.run_id) for run in found}

    mine: str | None = None
    seen: set[str] = set()
    since = time.monotonic()
    while True:
        good = connected.search_runs([experiment], f"tags.`{FILES_TAG}` = '{digest}'")
        if good:
            first = min(str(run.info.run_id) for run in good)
            _remove(connected, claims() - {first})
            return first
        others = claims() - {mine}
        if others != seen:
            seen, since = others, time.monotonic()
        if mine is not None and not known(connected, mine):  # taken for that of a killed process
            mine = None
        elif mine is None and not others:
            mine = str(connected.create_run(experiment, started, {**tags, CLAIM_TAG: digest}, name).info.run_id)
            continue
        elif mine is not None and others and min(others) < mine:
            connected.delete_run(mine)
            mine = None
        elif mine is not None and not others:
            try:
                connected.set_tag(mine, FILES_TAG, digest)
            except MlflowException:
                if known(connected, mine):
                    raise
                mine = None
            continue
        elif time.monotonic() - since > STALE:
            _remove(connected, others)
        time.sleep(0.1)


def _remove(connected: MlflowClient, claims: set[str]) -> None:
    """Delete claims but those that were made good meanwhile."""
    for run_id in claims:
        if FILES_TAG not in connected.get_run(run_id).data.tags:
            connected.delete_run(run_id)
