"""History: print the promotion log of a registered model."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.registry_fields import RegistryStep


class History(RegistryStep):
    """Print the promotion log: who made which version champion, when and why."""

    name: ClassVar[str] = "history"
    follows: ClassVar[str] = "champion"

    moves: Annotated[bool, Field(description="Whether only entries that changed the champion are shown.")] = False

    def run(self) -> None:
        """Print the entries, oldest first."""
        from cxr.promotion.log import join_names
        from cxr.tracking.aliases import read_promotion_log

        entries = read_promotion_log(self.store, self.registered_name)
        shown = [entry for entry in entries if entry.moved or not self.moves]
        for entry in shown:
            self.show(f"{entry.number:4d}  {entry.time:%Y-%m-%d %H:%M:%S} UTC  {entry.sentence()}, by {entry.who}")
            if entry.trained_by and entry.kind == "run":
                self.show(f"      - trained by {join_names(entry.trained_by)}")
            for reason in entry.reasons:
                self.show(f"      - {reason}")
            if entry.cut_off:
                self.show("      - the run was cut off before it stored the files of this decision")
            if entry.figures:
                self.show("      " + ", ".join(f"{name} {value:g}" for name, value in entry.figures.items()))
        if not shown:
            self.show(f"the promotion log of {self.registered_name} has no such entries")
