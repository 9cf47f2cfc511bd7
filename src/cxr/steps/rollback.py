"""Rollback: make the previous champion champion again."""

from __future__ import annotations

import logging
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.registry_fields import RegistryStep

log = logging.getLogger(__name__)


class Rollback(RegistryStep):
    """Make the previous champion champion again, one step per call; runs then leave the choice alone."""

    name: ClassVar[str] = "rollback"
    follows: ClassVar[str] = "history"

    reason: Annotated[str, Field(max_length=1000, description="Why, for the promotion log.")] = ""

    def run(self) -> None:
        """Move the alias and add an entry to the log."""
        from cxr.tracking.aliases import Aliases

        with self.store.clear_errors("roll the champion back"):
            entry = Aliases(self.store, self.registered_name).roll_back(self.reason)
        log.info("%s: %s; `cxr release` lets runs decide again", self.registered_name, entry.sentence())
