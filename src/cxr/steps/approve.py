"""Approve: make the version that waits for a second person champion."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from cxr.errors import ParameterError
from cxr.steps.base import Positional
from cxr.steps.registry_fields import VersionFilesStep

if TYPE_CHECKING:
    from cxr.tracking.approvals import Approvals

log = logging.getLogger(__name__)


class Approve(VersionFilesStep):
    """Make the version that waits for approval champion; the user must be another than the one that trained it."""

    name: ClassVar[str] = "approve"
    follows: ClassVar[str] = "history"

    version: Annotated[
        str | None,
        Positional(),
        Field(
            pattern=r"^[A-Za-z0-9_-]+$",
            description="Number or alias of the version; null: the one that was approved in MLflow's page.",
        ),
    ] = None
    reason: Annotated[str, Field(max_length=1000, description="Why, for the promotion log; needed with a version.")] = (
        ""
    )
    data: Annotated[Path, Field(description="Folder of the raw images, for a champion that must predict new ones.")] = (
        Path("data")
    )
    list: Annotated[bool, Field(description="Only show what waits, since when and from whom.")] = False

    def run(self) -> None:
        """Show what waits, or move the alias and add an entry to the log."""
        from cxr.tracking.approvals import Approvals

        if self.list and (self.version is not None or self.reason):
            raise ParameterError(
                [f"expected list=true alone, received version={self.version}, reason={self.reason!r}; leave them out"]
            )
        if self.version is not None and not self.reason.strip():
            raise ParameterError(
                [f"expected a reason for the promotion log, received reason={self.reason!r}; give --reason"]
            )
        store = self.store
        with store.clear_errors("approve a version"):
            approvals = Approvals(store, self.registered_name, self.data)
            if self.list:
                self._show_waiting(approvals)
            elif self.version is not None:
                self._approve(approvals, self.version)
            else:
                self._carry_out_request(approvals)

    def _approve(self, approvals: Approvals, version: str) -> None:
        from cxr.tracking.lineage_reader import resolve_version
        from cxr.tracking.users import current_user

        resolved, _ = resolve_version(self.store, self.registered_name, version)
        entry = approvals.approve(str(resolved.version), current_user(self.store), self.reason.strip())
        log.info("%s: %s", self.registered_name, entry.sentence())

    def _carry_out_request(self, approvals: Approvals) -> None:
        if self.reason:
            raise ParameterError(
                [f"expected a version, received version=null with reason={self.reason!r}; `cxr approve --list true` "
                 "shows which one waits"]
            )  # fmt: skip
        entry = approvals.carry_out_request()
        if entry is None:
            log.info("%s: nobody has approved a version in MLflow's page", self.registered_name)
        else:
            log.info("%s: %s", self.registered_name, entry.sentence())

    def _show_waiting(self, approvals: Approvals) -> None:
        from cxr.promotion.log import waiting_sentence

        entry, request = approvals.waiting(), approvals.requested()
        if entry is None:
            self.show(f"no version of {self.registered_name} waits for approval")
            return
        self.show(waiting_sentence(entry))
        if request is not None:
            _, user, reason = request
            self.show(
                f"Approved in MLflow's page by {user} ({reason}): the next `cxr register` or `cxr approve` reads it."
            )
