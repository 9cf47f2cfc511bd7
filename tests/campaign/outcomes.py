"""What an attempt of the campaign came to, and the attempts of one kind together."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Attempt:
    """One attempt.

    Attributes:
        kind: what was done, for the table.
        number: with the seed of the campaign, repeats it.
        outcome: what followed, in words.
        fault: what should not have followed; empty if there is nothing.
    """

    kind: str
    number: int
    outcome: str
    fault: str = ""

    def print(self) -> None:
        """Write it as a line of JSON, for the process that counts."""
        sys.stdout.write(json.dumps(asdict(self)) + "\n")
        sys.stdout.flush()


@dataclass
class Tally:
    """Attempts of one kind.

    Attributes:
        attempts: how often.
        outcomes: what followed, each with its number.
        faults: what should not have followed, each with the number that repeats it.
    """

    attempts: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Tallies:
    """All attempts of a campaign, by kind."""

    def __init__(self) -> None:
        self.by_kind: dict[str, Tally] = {}

    def add(self, attempt: Attempt) -> None:
        """Count an attempt."""
        tally = self.by_kind.setdefault(attempt.kind, Tally())
        tally.attempts += 1
        tally.outcomes["fault" if attempt.fault else attempt.outcome] += 1
        if attempt.fault:
            tally.faults.append(f"{attempt.kind}, number {attempt.number}: {attempt.fault}")
            sys.stdout.write(f"FAULT: {tally.faults[-1]}\n")
            sys.stdout.flush()

    def faults(self) -> list[str]:
        """What should not have followed, in the order of the kinds."""
        return [fault for kind in sorted(self.by_kind) for fault in self.by_kind[kind].faults]

    def rows(self) -> list[str]:
        """The table's rows in Markdown."""
        rows = []
        for kind, tally in sorted(self.by_kind.items()):
            outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(tally.outcomes.items()))
            rows.append(f"| {kind} | {tally.attempts:,} | {outcomes} | {len(tally.faults)} |")
        return rows


def count_attempts(tallies: Tallies, commands: Iterable[list[str]], environment: Mapping[str, str]) -> list[int]:
    """Run processes that print attempts, all at once, and count what they print.

    Args:
        tallies: receives the attempts.
        commands: command lines.
        environment: variables of the processes.

    Returns:
        Exit status of each.
    """
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(environment)) for command in commands
    ]
    for process in processes:  # a pipe holds the lines of many attempts
        assert process.stdout is not None
        for line in process.stdout:
            tallies.add(Attempt(**json.loads(line)))
    return [process.wait() for process in processes]
