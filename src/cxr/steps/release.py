"""Release: let runs decide about the aliases again after a person has chosen."""

from __future__ import annotations

import logging
from typing import ClassVar

from cxr.steps.registry_fields import Registered

log = logging.getLogger(__name__)


class Release(Registered):
    """Let runs decide about champion and challenger again after a person's choice or a rollback."""

    name: ClassVar[str] = "release"

    def run(self) -> None:
        """Write the log; the aliases stay where they are."""
        from cxr.tracking.aliases import Aliases

        entry = Aliases(self.tracking_uri, self.registered_name).release()
        words = entry.sentence() if entry else "no alias was chosen by a person, nothing to release"
        log.info("%s: %s", self.registered_name, words)
