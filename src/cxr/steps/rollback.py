"""Rollback: make the champion before the present one champion again."""

from __future__ import annotations

import logging
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.registry_fields import Registered

log = logging.getLogger(__name__)


class Rollback(Registered):
    """Make the previous champion champion again, one step per call; runs then leave the choice alone."""

    name: ClassVar[str] = "rollback"

    reason: Annotated[str, Field(max_length=1000, description="Why, for the promotion log.")] = ""

    def run(self) -> None:
        """Move the alias and write the log."""
        from cxr.tracking.aliases import Aliases

        entry = Aliases(self.tracking_uri, self.registered_name).roll_back(self.reason)
        log.info("%s: %s; `cxr release` lets runs decide again", self.registered_name, entry.sentence())
