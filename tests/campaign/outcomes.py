"""What a part of the campaign has tried, and what went wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Attempts of one kind.

    Attributes:
        kind: what was done, for the table.
        attempts: how often.
        outcomes: what followed, each with its number.
        faults: what should not have followed, each with the seed that repeats it.
    """

    kind: str
    attempts: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, outcome: str) -> None:
        """Count an attempt that ended as it should."""
        self.attempts += 1
        self.outcomes[outcome] += 1

    def add_fault(self, description: str, seed: int) -> None:
        """Count an attempt that ended as it should not."""
        self.attempts += 1
        self.outcomes["fault"] += 1
        self.faults.append(f"{description} (seed {seed})")

    def row(self) -> str:
        """The tally as a row of a Markdown table."""
        outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        return f"| {self.kind} | {self.attempts:,} | {outcomes} | {len(self.faults)} |"
