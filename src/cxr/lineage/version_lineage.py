"""Where a version comes from: its data, code, training and evaluation, and how to find each of them again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

NOT_RECORDED = "not recorded"
CHOSEN_ON_VALIDATION = ("threshold", "temperature", "box_scale")
"""Values that the evaluation chooses on validation."""


@dataclass(frozen=True)
class MemberVersion:
    """A member of an ensemble, with its own version if it is registered.

    Attributes:
        model: name of the model.
        weight: its weight in the ensemble, 0..1.
        git_commit: commit of the code that trained it.
        version: its own version; None if it is not registered.
        run_id: the run that trained it; None if unknown.
    """

    model: str
    weight: float
    git_commit: str | None
    version: str | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class Lineage:
    """Everything from which a version was made.

    Attributes:
        name: the registered model.
        version: number of the version.
        aliases: its aliases.
        registered: when it was registered, UTC, in ISO format.
        tags: the version's tags.
        run_id: the run that trained it; None if the version names none.
        run_name: name of that run.
        run_files: address of the run's files.
        parameters: parameters of the training.
        members: members of an ensemble.
        absent: what the tags name, but the store no longer has.
        links: addresses of MLflow's pages; empty if the store is a file.
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
    members: tuple[MemberVersion, ...] = ()
    absent: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Name, version and aliases, for a reader."""
        aliases = f" ({', '.join(self.aliases)})" if self.aliases else ""
        return f"{self.name} version {self.version}{aliases}"

    @property
    def measures(self) -> dict[str, float]:
        """Measures of the evaluation and on other data, and what the evaluation chose on validation; from the tags."""
        names = [
            name
            for name in self.tags
            if name.startswith(("validation_", "test_", "outside/")) or name in CHOSEN_ON_VALIDATION
        ]
        return {name: float(self.tags[name]) for name in names if _is_number(self.tags[name])}

    @property
    def test_measures(self) -> dict[str, float]:
        """Measures of the version's own test images, without the beginning ``test_`` of their tags."""
        return {name.removeprefix("test_"): value for name, value in self.measures.items() if name.startswith("test_")}

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON.

        Returns:
            Field name to value, and the measures as ``figures``.
        """
        return {**asdict(self), "figures": self.measures}

    def to_text(self) -> str:
        """Write the lineage for a terminal.

        Returns:
            An indented list with one fact per line.
        """
        lines = [self.title]
        for heading, facts in self._sections().items():
            lines.append(f"  {heading}")
            width = max(map(len, facts), default=0)
            lines += [f"    {label:<{width}}  {value}" for label, value in facts.items()]
        if self.absent:
            lines.append(f"  gone from the store: {', '.join(self.absent)}")
        return "\n".join(lines) + "\n"

    def _sections(self) -> dict[str, dict[str, str]]:
        """Heading to label to value, without unknown values and empty sections."""
        sections: dict[str, dict[str, str | None]] = {
            "version": {
                "model": self._join_tags("model", "system", separator=", source system "),
                "registered": self.registered,
                "registered from": self._join_tags("registered_from", default="an unknown commit"),
                "signed by key": self._join_tags("signed_by", default="not signed"),
                "approval": self.tags.get("approval"),
                "page": self.links.get("version"),
            },
            "data": {
                "name": self._join_tags("dataset", "dataset_kind", separator=", "),
                "source": self._join_tags("data_source"),
                "licence": self._join_tags("data_licence"),
                "md5 (data.dvc)": self._join_tags("data_md5"),
                "content digest": self._join_tags("data_digest"),
                "split": self._join_tags("split_protocol", "split_digest", separator=", digest "),
            },
            "code": {
                "commit": self._join_tags("git_commit"),
                "environment": self._join_tags("environment"),
                "params.yaml": self._join_tags("params"),
                "dvc.lock": self._join_tags("dvc_lock"),
                "stage": self._join_tags("dvc_stage", default="the lock file does not describe this model"),
                "pipeline run": self._join_tags("pipeline_run", default="none: run by hand or by DVC"),
                "image": self._join_tags("image_digest", default="none: ran outside a container"),
            },
            "training": {
                "run": f"{self.run_name} {self.run_id}" if self.run_id else NOT_RECORDED,
                "page": self.links.get("run"),
                "curves": self.links.get("curves"),
                "files": self.run_files,
                "device": self._join_tags("device", "framework", separator=", "),
                "seconds": self._join_tags("train_seconds"),
                "seed": self._join_tags("seed"),
            },
            "members": {member.model: _describe_member(member) for member in self.members},
            "evaluation": {
                "files": self.links.get("evaluation") or self._join_tags("evaluation"),
                "report": self.links.get("report") or self._join_tags("report"),
                "threshold rule": self._join_tags("threshold_rule"),
                "worst slice on test": self.tags.get("test_worst_slice"),
                **{name: f"{value:.4f}" for name, value in self.measures.items()},
            },
            "documents": {
                "model card": self.links.get("model_card") or self._join_tags("model_card"),
                "record": self.links.get("record") or self._join_tags("record"),
                "bill of materials": self._join_tags("sbom"),
            },
        }
        known = {name: {label: value for label, value in facts.items() if value} for name, facts in sections.items()}
        return {name: facts for name, facts in known.items() if facts}

    def _join_tags(self, *names: str, separator: str = "", default: str = NOT_RECORDED) -> str:
        return separator.join(self.tags[name] for name in names if self.tags.get(name)) or default


def _describe_member(member: MemberVersion) -> str:
    version = f"version {member.version}, run {member.run_id}" if member.version else "not registered on its own"
    return f"weight {member.weight:.4f}, {version}, commit {member.git_commit or NOT_RECORDED}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
