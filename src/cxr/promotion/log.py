"""The promotion log without its store: which version was served when, and which one is one step back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

CHAMPION, CHALLENGER = "champion", "challenger"
ALIASES = (CHAMPION, CHALLENGER)
"""Aliases that the log tells about: the version that is served, and the one that may be next."""

Kind = Literal["run", "person", "rollback", "release"]
"""Who moved or left the aliases: a register run; a person in MLflow's page; ``cxr rollback``; ``cxr release``."""

Places = Mapping[str, str | None]
"""Alias to version, None where nobody has it; an alias that is missing is nobody's."""


@dataclass(frozen=True)
class Entry:
    """One entry of the promotion log; entries are only ever added.

    Attributes:
        number: place in the log, from 1.
        time: when it was written, with time zone; of a person's change when it was first seen.
        kind: what it tells about.
        who: account and machine, or pipeline run, or ``"a person"``.
        before: aliases before.
        after: aliases after.
        held: aliases that stand as a person has set them; a run never moves them.
        candidate: version that was looked at, None where there was none.
        reasons: sentences: why the candidate was not promoted, or what the person gave as reason.
        figures: what was compared, by name.
        applied: whether the registry is known to say what ``after`` says.
    """

    number: int
    time: datetime
    kind: Kind
    who: str
    before: Places
    after: Places
    held: tuple[str, ...] = ()
    candidate: str | None = None
    reasons: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    applied: bool = False

    @property
    def champion(self) -> str | None:
        """Version that was champion afterwards."""
        return self.after.get(CHAMPION)

    @property
    def moved(self) -> bool:
        """Whether the champion changed."""
        return self.before.get(CHAMPION) != self.champion

    def to_json(self) -> str:
        """Write the entry as one line.

        Returns:
            JSON without ``number`` and ``applied``, which the store keeps apart.
        """
        values = {key: value for key, value in asdict(self).items() if key not in {"number", "applied"}}
        return json.dumps({**values, "time": self.time.isoformat()})

    @classmethod
    def from_json(cls, number: int, text: str, *, applied: bool) -> Entry:
        """Read what :meth:`to_json` has written.

        Args:
            number: place in the log.
            text: the line.
            applied: whether the registry is known to follow it.

        Returns:
            The entry.
        """
        values: dict[str, Any] = json.loads(text)
        lists = {key: tuple(values[key]) for key in ("held", "reasons")}
        return cls(
            **{**values, **lists, "time": datetime.fromisoformat(values["time"])}, number=number, applied=applied
        )

    def sentence(self) -> str:
        """Say what happened to the champion.

        Returns:
            A clause without time.
        """
        before, after = self.before.get(CHAMPION), self.champion
        became = f"version {after} became champion" if after else "nobody is champion any more"
        if self.moved:
            instead = f" instead of version {before}" if before and after else ""
            how = {
                "run": "promoted by a run",
                "person": "set by hand",
                "rollback": "rolled back",
                "release": "released",
            }
            return f"{became}{instead} ({how[self.kind]})"
        stays = f"version {after} stayed champion" if after else "nobody is champion"
        if self.kind == "release":
            return f"{stays}; runs decide again"
        return f"{stays}; version {self.candidate} was not promoted" if self.candidate else stays


def champion_on(entries: Sequence[Entry], moment: datetime) -> Entry | None:
    """Find the entry that tells who was champion at a moment.

    Args:
        entries: the log, oldest first.
        moment: with time zone.

    Returns:
        The last entry up to the moment, None if the log begins later.
    """
    return next((entry for entry in reversed(entries) if entry.time <= moment), None)


def champions_between(entries: Sequence[Entry], start: datetime, end: datetime) -> list[tuple[datetime, str | None]]:
    """List who was champion in a span of time.

    Args:
        entries: the log, oldest first.
        start: beginning, with time zone.
        end: end, with time zone.

    Returns:
        Moment from which, and version, None for nobody; the first moment is ``start``.
    """
    first = champion_on(entries, start)
    spans: list[tuple[datetime, str | None]] = [(start, first.champion if first else None)]
    for entry in entries:
        if start < entry.time <= end and entry.champion != spans[-1][1]:
            spans.append((entry.time, entry.champion))
    return spans


def one_step_back(entries: Sequence[Entry]) -> str | None:
    """Find the version that a rollback returns to.

    Going back twice goes back two steps: a rollback takes versions off the pile that promotions have made.

    Args:
        entries: the log, oldest first.

    Returns:
        The version, None if there was no other champion before.
    """
    pile: list[str] = []
    current = None
    for entry in entries:
        current = entry.champion
        if current is None or not entry.moved:
            continue
        if entry.kind == "rollback":
            while pile and pile[-1] != current:
                pile.pop()
        if not pile or pile[-1] != current:
            pile.append(current)
    return next((version for version in reversed(pile) if version != current), None)
