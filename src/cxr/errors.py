"""Every error that a person can cause or meet, each with the exit status the command line gives it."""

from __future__ import annotations

from collections.abc import Sequence


class CxrError(Exception):
    """Base of the project's errors; its text says what was expected, what was received and what to do."""

    exit_status = 1


class ParameterError(CxrError):
    """One or more parameters are unknown or out of bounds: all of them are listed together."""

    exit_status = 2

    def __init__(self, problems: Sequence[str]) -> None:
        """Join the problems, one a line.

        Args:
            problems: one sentence per wrong parameter: expected, ``name=value`` received, what to do.
        """
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class MissingInputError(CxrError):
    """A file or folder that a step reads is not there: it names the step that makes it."""

    exit_status = 2


class InstallationError(CxrError):
    """A program, package or image that a step needs is not here: it says how to get it."""

    exit_status = 2


class DriftError(CxrError):
    """A window of predictions has drifted: its report says in what."""

    exit_status = 3


class TooFewError(CxrError):
    """A window of predictions holds too few films to tell whether it has drifted."""

    exit_status = 4


class SourceError(CxrError):
    """A data source cannot be read, is incomplete, or is not what was asked for."""


class DataError(CxrError):
    """The data broke a critical rule (unreadable, leaking, mislabelled): the offending files are listed."""


class ImageError(CxrError):
    """One image cannot be used; ``problem`` is one of :data:`cxr.images.decoding.PROBLEMS`."""

    def __init__(self, problem: str, detail: str) -> None:
        """Keep the kind of problem beside its description.

        Args:
            problem: short name of the kind, for example ``"truncated"``.
            detail: what was found, with values.
        """
        self.problem = problem
        self.detail = detail
        super().__init__(f"{problem}: {detail}")


class TrainingError(CxrError):
    """Training cannot start, go on or resume with what it was given."""


class RegistryError(CxrError):
    """The tracking server or the model registry cannot do what was asked."""


class PipelineError(CxrError):
    """A run of a pipeline failed: it names the step, whose own words stand in the run's log."""


class ClusterError(CxrError):
    """Kubeflow Pipelines cannot be reached or refuses, or a run or schedule there did not do as it should."""


class SignatureError(CxrError):
    """A message isn't from whom it says it is, was altered, or isn't of now: nothing is done about it."""


class ServiceError(CxrError):
    """The service cannot start: it says why the first of its workers could not."""

    def __init__(self, text: str, exit_status: int) -> None:
        """Keep what the worker said.

        Args:
            text: its words.
            exit_status: that of its error.
        """
        self.exit_status = exit_status
        super().__init__(text)
