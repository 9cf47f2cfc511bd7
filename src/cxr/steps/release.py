"""Release: let runs decide about the aliases again after a person has chosen."""

from __future__ import annotations

import logging
from typing import ClassVar

from cxr.steps.registry_fields import RegistryStep

log = logging.getLogger(__name__)


class Release(RegistryStep):
    """Let runs decide about champion and challenger again after a person's choice or a rollback."""

    name: ClassVar[str] = "release"
    follows: ClassVar[str] = "rollback"

    def run(self) -> None:
        """Add an entry to the log; the aliases stay where they are."""
        from cxr.tracking.aliases import Aliases

        with self.store.clear_errors("let runs decide again"):
            entry = Aliases(self.store, self.registered_name).release()
        message = entry.sentence() if entry else "no alias was chosen by a person, nothing to release"
        log.info("%s: %s", self.registered_name, message)
