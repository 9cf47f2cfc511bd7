"""The promotion log without its store: which version was champion when, and which one a rollback returns to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

CHAMPION, CHALLENGER, CANDIDATE = "champion", "challenger", "candidate"
ALIASES = (CHAMPION, CHALLENGER, CANDIDATE)
"""Aliases in the log: the version that is served, the one that may be next, and the one that waits for approval."""

EntryKind = Literal["run", "person", "rollback", "release", "approval"]
"""Who moved or left the aliases: a register run; a person in MLflow's page; ``cxr rollback``; ``cxr release``; a person
who approved the version that waited."""

AliasVersions = Mapping[str, str | None]
"""Alias to version; None, or a missing alias, means that no version has it."""


def known_aliases(versions: AliasVersions) -> dict[str, str | None]:
    """Select the aliases of the log, in its order.

    Args:
        versions: alias to version.

    Returns:
        The same for :data:`ALIASES`; the candidate only if there is one, because most logs never have one.
    """
    return {alias: versions.get(alias) for alias in ALIASES if alias != CANDIDATE or versions.get(alias) is not None}


@dataclass(frozen=True)
class PromotionEntry:
    """One entry of the promotion log; entries are only ever added.

    Attributes:
        number: position in the log, from 1.
        time: when it was written, with time zone; for a person's change, when the change was first noticed.
        kind: what it records.
        who: account and machine, or pipeline run, or ``"a person"``.
        before: aliases before.
        after: aliases after.
        manual_aliases: aliases that a person has set; a run never moves them.
        candidate: version that the decision was about; None if there was none.
        reasons: sentences: why the candidate was not promoted, or the reason that a person gave.
        figures: figures of the comparison, by name.
        applied: whether the registry is known to agree with ``after``.
        cut_off: whether a later registration missed the files of this decision: its run ended before it stored them.
        trained_by: users that trained a version that began to wait for approval, or was approved.
        approved_by: user that approved the version; empty if it was not approved.
    """

    number: int
    time: datetime
    kind: EntryKind
    who: str
    before: AliasVersions
    after: AliasVersions
    manual_aliases: tuple[str, ...] = ()
    candidate: str | None = None
    reasons: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    applied: bool = False
    cut_off: bool = False
    trained_by: tuple[str, ...] = ()
    approved_by: str = ""

    @property
    def champion(self) -> str | None:
        """Version that was champion afterwards."""
        return self.after.get(CHAMPION)

    @property
    def moved(self) -> bool:
        """Whether the champion changed."""
        return self.before.get(CHAMPION) != self.champion

    @property
    def waiting(self) -> str | None:
        """Version that waited for approval afterwards."""
        return self.after.get(CANDIDATE)

    def to_json(self) -> str:
        """Write the entry as one line of JSON, without what the store keeps separately.

        That is ``number``, ``applied`` and ``cut_off``.
        """
        approval = {"trained_by": self.trained_by, "approved_by": self.approved_by}
        return json.dumps(
            {
                "time": self.time.isoformat(),
                "kind": self.kind,
                "who": self.who,
                "before": dict(self.before),
                "after": dict(self.after),
                "held": self.manual_aliases,
                "candidate": self.candidate,
                "reasons": self.reasons,
                "figures": dict(self.figures),
                **{name: value for name, value in approval.items() if value},
            }
        )

    @classmethod
    def from_json(cls, number: int, text: str, *, applied: bool, cut_off: bool) -> PromotionEntry:
        """Read a line that :meth:`to_json` has written.

        Args:
            number: position in the log.
            text: the line.
            applied: whether the registry is known to agree with it.
            cut_off: whether its decision is marked as cut off.

        Returns:
            The entry.
        """
        values: dict[str, Any] = json.loads(text)
        time, manual, reasons = values.pop("time"), values.pop("held"), values.pop("reasons")
        trained_by = values.pop("trained_by", ())
        return cls(
            **values,
            number=number,
            time=datetime.fromisoformat(time),
            manual_aliases=tuple(manual),
            reasons=tuple(reasons),
            applied=applied,
            cut_off=cut_off,
            trained_by=tuple(trained_by),
        )

    def sentence(self) -> str:
        """Say in a clause, without the time, what happened to the champion."""
        before, after = self.before.get(CHAMPION), self.champion
        if self.moved:
            became = f"version {after} became champion" if after else "nobody is champion any more"
            instead = f" instead of version {before}" if before and after else ""
            how = {
                "run": "promoted by a run",
                "person": "set by hand",
                "rollback": "rolled back",
                "release": "released",
                "approval": f"approved by {self.approved_by}, trained by {join_names(self.trained_by)}",
            }
            return f"{became}{instead} ({how[self.kind]})"
        stays = f"version {after} stayed champion" if after else "nobody is champion"
        if self.kind == "release":
            return f"{stays}; runs decide again"
        waited = self.before.get(CANDIDATE)
        if self.kind == "run" and self.waiting is not None and self.waiting == self.candidate:
            instead = f" instead of version {waited}" if waited not in (None, self.waiting) else ""
            return f"{stays}; version {self.candidate} waits for approval{instead}"
        if self.kind == "person" and waited != self.waiting:
            change = f"version {waited} waits no longer" if waited else f"version {self.waiting} was made candidate"
            return f"{stays}; {change} (by hand)"
        return f"{stays}; version {self.candidate} was not promoted" if self.candidate else stays


def join_names(users: Sequence[str]) -> str:
    """Name users in a sentence."""
    return " and ".join(users) or "an unknown user"


EMPTY_LOG = PromotionEntry(0, datetime.min.replace(tzinfo=UTC), "person", "", {}, {}, applied=True)
"""Stands for the last entry of a log that has none."""


@dataclass(frozen=True)
class AliasState:
    """Which versions have the aliases, as log and registry agree.

    Attributes:
        last_entry: the log's last entry; :data:`EMPTY_LOG` if there is none.
        versions: alias to version; None if no version has it.
        manual_aliases: aliases that a person has set.
    """

    last_entry: PromotionEntry
    versions: AliasVersions
    manual_aliases: tuple[str, ...]

    @property
    def champion(self) -> str | None:
        """Version that is champion."""
        return self.versions[CHAMPION]

    @property
    def waiting(self) -> str | None:
        """Version that waits for approval."""
        return self.versions.get(CANDIDATE)

    @property
    def before_last_entry(self) -> AliasState:
        """The state that the last entry's decision was based on, as far as that entry says."""
        return AliasState(EMPTY_LOG, known_aliases(self.last_entry.before), self.last_entry.manual_aliases)

    def records(self, candidate: str, after: AliasVersions, reasons: Sequence[str] | None) -> bool:
        """Whether the log's last entry records a run's decision already: the same run again adds nothing.

        Args:
            candidate: version of the challenger.
            after: aliases after the decision.
            reasons: sentences of the broken rules; None if no rule was looked at.
        """
        last = self.last_entry
        same = (last.candidate, dict(last.after)) == (candidate, dict(after)) and last.kind in ("run", "approval")
        return same and (reasons is None or last.reasons == tuple(reasons))


def champion_on(entries: Sequence[PromotionEntry], moment: datetime) -> PromotionEntry | None:
    """Find the entry that says who was champion at a moment.

    Args:
        entries: the log, oldest first.
        moment: with time zone.

    Returns:
        The last entry up to the moment; None if the log begins later.
    """
    return next((entry for entry in reversed(entries) if entry.time <= moment), None)


def champions_between(
    entries: Sequence[PromotionEntry], start: datetime, end: datetime
) -> list[tuple[datetime, str | None]]:
    """List who was champion in a period.

    Args:
        entries: the log, oldest first.
        start: beginning, with time zone.
        end: end, with time zone.

    Returns:
        Pairs of start time and version, None for nobody; the first time is ``start``.
    """
    first = champion_on(entries, start)
    spans: list[tuple[datetime, str | None]] = [(start, first.champion if first else None)]
    for entry in entries:
        if start < entry.time <= end and entry.champion != spans[-1][1]:
            spans.append((entry.time, entry.champion))
    return spans


def became_champion(entries: Sequence[PromotionEntry], version: str | None, moment: datetime) -> PromotionEntry | None:
    """Find the entry by which a version, or nobody, became champion.

    Args:
        entries: the log, oldest first.
        version: the version; None for nobody.
        moment: with time zone; later entries are ignored.

    Returns:
        The last such entry; None if there is none.
    """
    matches = (entry for entry in reversed(entries) if entry.time <= moment)
    return next((entry for entry in matches if entry.moved and entry.champion == version), None)


def previous_champion(entries: Sequence[PromotionEntry]) -> str | None:
    """Find the version that a rollback returns to.

    Two rollbacks go back two steps: promotions push versions on a stack, and a rollback takes them off.

    Args:
        entries: the log, oldest first.

    Returns:
        The version; None if there was no other champion before.
    """
    stack: list[str] = []
    current = None
    for entry in entries:
        current = entry.champion
        if current is None or not entry.moved:
            continue
        if entry.kind == "rollback":
            while stack and stack[-1] != current:
                stack.pop()
        if not stack or stack[-1] != current:
            stack.append(current)
    return next((version for version in reversed(stack) if version != current), None)


def began_to_wait(entries: Sequence[PromotionEntry]) -> PromotionEntry | None:
    """Find the entry by which a run let the present candidate wait for approval.

    Args:
        entries: the log, oldest first.

    Returns:
        The entry; None if no version waits, or only a person has set the alias.
    """
    waiting, first = entries[-1].waiting if entries else None, None
    if waiting is None or entries[-1].champion == waiting:
        return None
    for entry in reversed(entries):
        if entry.waiting != waiting:
            break
        if entry.trained_by:
            first = entry
    return first


def waiting_sentence(entry: PromotionEntry) -> str:
    """Say which version waits for approval, since when, from whom, and what to do.

    Args:
        entry: the entry by which it began to wait.

    Returns:
        A sentence.
    """
    return (
        f"Version {entry.waiting} waits since {entry.time:%Y-%m-%d %H:%M:%S} UTC for the approval of another user than "
        f"{join_names(entry.trained_by)}, who trained it (registered by {entry.who}): "
        f'`cxr approve {entry.waiting} --reason "..."`.'
    )
