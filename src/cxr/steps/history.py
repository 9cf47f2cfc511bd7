"""History: print the promotion log of a registered model."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.registry_fields import Registered


class History(Registered):
    """Print the promotion log: who made which version champion, when and why."""

    name: ClassVar[str] = "history"

    moves: Annotated[bool, Field(description="Whether only entries that changed the champion are shown.")] = False

    def run(self) -> None:
        """Print one paragraph per entry, oldest first."""
        from cxr.tracking.registry import promotion_log

        entries = [one for one in promotion_log(self.tracking_uri, self.registered_name) if one.moved or not self.moves]
        for entry in entries:
            self.show(f"{entry.number:4d}  {entry.time:%Y-%m-%d %H:%M:%S} UTC  {entry.sentence()}, by {entry.who}")
            for reason in entry.reasons:
                self.show(f"      - {reason}")
            if entry.figures:
                self.show("      " + ", ".join(f"{name} {value:g}" for name, value in entry.figures.items()))
        if not entries:
            self.show(f"the promotion log of {self.registered_name} has no such entries")
