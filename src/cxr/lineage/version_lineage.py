"""Where a version comes from: data, code, training, evaluation, and how each of them is found again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

NOT_RECORDED = "not recorded"
CHOSEN = ("threshold", "temperature")
"""Figures that the evaluation chose on validation."""


@dataclass(frozen=True)
class Origin:
    """A version that an ensemble's member is, or the member alone where no version is known.

    Attributes:
        model: name of the model.
        weight: its weight in the ensemble.
        git_commit: commit of the code that trained it.
        version: its own version; None if it isn't registered.
        run_id: the run that trained it; None if unknown.
    """

    model: str
    weight: float
    git_commit: str | None
    version: str | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class Lineage:
    """Everything that leads from a version back to what it was made from.

    Attributes:
        name: the registered model.
        version: number of the version.
        aliases: its aliases.
        registered: when it was registered, UTC, in ISO form.
        tags: the version's tags.
        run_id: the run that trained it; None where the version names none.
        run_name: name of that run.
        run_files: where the run's files lie.
        parameters: parameters of the training.
        members: of an ensemble.
        absent: what the tags name and the store no longer has.
        links: addresses in MLflow's page; empty where the store is a file.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    registered: str
    tags: Mapping[str, str]
    run_id: str | None = None
    run_name: str | None = None
    run_files: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    members: tuple[Origin, ...] = ()
    absent: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Name, version and aliases in words."""
        aliases = f" ({', '.join(self.aliases)})" if self.aliases else ""
        return f"{self.name} version {self.version}{aliases}"

    @property
    def figures(self) -> dict[str, float]:
        """Figures of the evaluation, from the tags."""
        names = [key for key in self.tags if key.startswith(("validation_", "test_")) or key in CHOSEN]
        return {key: float(self.tags[key]) for key in names if _is_number(self.tags[key])}

    def to_dict(self) -> dict[str, Any]:
        """Make it storable.

        Returns:
            Field name to value, for JSON; ``figures`` are added.
        """
        return {**asdict(self), "figures": self.figures}

    def to_text(self) -> str:
        """Write it for a terminal.

        Returns:
            An indented list, one fact a line.
        """
        lines = [self.title]
        for heading, facts in self._parts().items():
            lines.append(f"  {heading}")
            width = max(map(len, facts), default=0)
            lines += [f"    {label:<{width}}  {value}" for label, value in facts.items()]
        if self.absent:
            lines.append(f"  gone from the store: {', '.join(self.absent)}")
        return "\n".join(lines) + "\n"

    def _parts(self) -> dict[str, dict[str, str]]:
        run = f"{self.run_name} {self.run_id}" if self.run_id else NOT_RECORDED
        parts: dict[str, dict[str, str | None]] = {
            "version": {
                "model": self._told("model", "system", between=", source system "),
                "registered": self.registered,
                "registered from": self._told("registered_from", otherwise="an unknown commit"),
                "page": self.links.get("version"),
            },
            "data": {
                "name": self._told("dataset", "dataset_kind", between=", "),
                "source": self._told("data_source"),
                "licence": self._told("data_licence"),
                "md5 (data.dvc)": self._told("data_md5"),
                "content digest": self._told("data_digest"),
                "split": self._told("split_protocol", "split_digest", between=", digest "),
            },
            "code": {
                "commit": self._told("git_commit"),
                "environment": self._told("environment"),
                "params.yaml": self._told("params"),
                "dvc.lock": self._told("dvc_lock"),
                "stage": self._told("dvc_stage", otherwise="the lock file does not describe this model"),
                "pipeline run": self._told("pipeline_run", otherwise="none: run by hand or by DVC"),
                "image": self._told("image_digest", otherwise="none: ran outside a container"),
            },
            "training": {
                "run": run,
                "page": self.links.get("run"),
                "curves": self.links.get("curves"),
                "files": self.run_files,
                "device": self._told("device", "framework", between=", "),
                "seconds": self._told("train_seconds"),
                "seed": self._told("seed"),
            },
            "members": {member.model: _member(member) for member in self.members},
            "evaluation": {
                "files": self.links.get("evaluation") or self._told("evaluation"),
                "report": self.links.get("report") or self._told("report"),
                "threshold rule": self._told("threshold_rule"),
                **{name: f"{value:.4f}" for name, value in self.figures.items()},
            },
            "documents": {
                "model card": self.links.get("model_card") or self._told("model_card"),
                "record": self.links.get("record") or self._told("record"),
            },
        }
        known = {name: {key: value for key, value in facts.items() if value} for name, facts in parts.items()}
        return {name: facts for name, facts in known.items() if facts}

    def _told(self, *names: str, between: str = "", otherwise: str = NOT_RECORDED) -> str:
        found = [self.tags[name] for name in names if self.tags.get(name)]
        return between.join(found) or otherwise


def _member(member: Origin) -> str:
    where = f"version {member.version}, run {member.run_id}" if member.version else "not registered on its own"
    return f"weight {member.weight:.4f}, {where}, commit {member.git_commit or NOT_RECORDED}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
