"""The command that drift starts, for example a training: once per version, until a window without drift."""

from __future__ import annotations

import json
import logging
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cxr.errors import InstallationError, PipelineError
from cxr.files import DRIFT_FILE, write_json

ON_DRIFT = "on_drift"
"""Entry of drift.json about the command that was run; null if none was."""

log = logging.getLogger(__name__)


def read_report(folder: Path) -> dict[str, Any]:
    """Read drift.json.

    Args:
        folder: folder of the report; may be missing.

    Returns:
        Its entries; empty if there is no readable file.
    """
    try:
        report = json.loads((folder / DRIFT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def entries_of_run(previous: dict[str, Any] | None, identity: str, outcome: str) -> dict[str, Any]:
    """Carry the entry about the command over to a new report, as long as the same drift lasts.

    Args:
        previous: entry of the previous report; None if no command was run.
        identity: hash that tells the compared version from others.
        outcome: outcome of the new comparison.

    Returns:
        Entries of the new drift.json. The earlier command is forgotten after a window without drift and for another
        version.
    """
    same_drift = previous is not None and previous["identity"] == identity and outcome != "no drift"
    return {"identity": identity, ON_DRIFT: previous if same_drift else None}


def run_command_once(command: Sequence[str], folder: Path) -> None:
    """Run a command, unless it was already run for this drift, and note that in drift.json.

    Args:
        command: program and arguments.
        folder: folder of the report.

    Raises:
        InstallationError: if the program does not exist.
        PipelineError: if the command fails; the next comparison with drift runs it again.
    """
    report = read_report(folder)
    if report[ON_DRIFT] is not None:
        log.info("on_drift was run for this version on %s and is not run again", report[ON_DRIFT]["time"])
        return
    log.info("on drift: %s", shlex.join(command))
    try:
        status = subprocess.run(command, check=False).returncode
    except OSError as error:
        raise InstallationError(
            f"expected a command to run on drift, received on_drift={list(command)} ({error.strerror}); "
            "correct drift.on_drift"
        ) from error
    if status:
        raise PipelineError(
            f"{report['sentence']}; expected the command of on_drift to end with status 0, received {status} from "
            f"{shlex.join(command)}; it is run again next time"
        )
    time = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"time": time, "identity": report["identity"], "command": list(command)}
    write_json(folder / DRIFT_FILE, {**report, ON_DRIFT: entry})
