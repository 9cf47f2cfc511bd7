"""All errors that a user can cause or see, each with its exit status on the command line."""

from __future__ import annotations

from collections.abc import Sequence


class CxrError(Exception):
    """Base class of the project's errors; the text says what was expected, what was received and what to do."""

    exit_status = 1


class ParameterError(CxrError):
    """One or more parameters are unknown or out of bounds; the text lists all of them."""

    exit_status = 2

    def __init__(self, problems: Sequence[str]) -> None:
        """Join the problems, one per line.

        Args:
            problems: one sentence per wrong parameter: expected, ``name=value`` received, what to do.
        """
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class MissingInputError(CxrError):
    """A file or folder that a step reads is missing; the text names the step that creates it."""

    exit_status = 2


class InstallationError(CxrError):
    """A program, package or container image that a step needs is not installed; the text says how to get it."""

    exit_status = 2


class DriftError(CxrError):
    """A window of predictions has drifted; its report shows which quantities."""

    exit_status = 3


class TooFewError(CxrError):
    """A window of predictions holds too few images to tell whether it has drifted."""

    exit_status = 4


class DiskFullError(CxrError):
    """A disk has no room for an output; the text names the output, and the room that it needs where that is known."""


class QueueFullError(CxrError):
    """The queue of the DICOM node takes no further image: too many wait, or the disk has no room."""


class DeliveryError(CxrError):
    """The destination of reports cannot be reached, or cannot take anything at the moment; the text has no values."""


class RefusedReportError(CxrError):
    """The destination refuses a report, and would refuse it again; the text has no values of the report."""


class AccessError(CxrError):
    """This user may not read an input or write an output; the text names the file."""

    exit_status = 2


class SourceError(CxrError):
    """A data source cannot be read, is incomplete, or is not the requested one."""


class TransferError(SourceError):
    """A file did not arrive whole, however often it was tried; the same command can succeed later."""


class DataError(CxrError):
    """The data violate a critical rule (unreadable, leaking, mislabelled); the text lists the files."""


class ImageError(CxrError):
    """One image cannot be used; ``problem`` is a key of :data:`cxr.images.problems.PROBLEMS`."""

    def __init__(self, problem: str, detail: str) -> None:
        """Store the kind of problem and its description.

        Args:
            problem: kind of the problem, for example ``"truncated"``.
            detail: description of this case, with values.
        """
        self.problem = problem
        self.detail = detail
        super().__init__(f"{problem}: {detail}")


class TrainingError(CxrError):
    """Training cannot start, continue or resume with its inputs."""


class RegistryError(CxrError):
    """The tracking server or the model registry cannot carry out a request."""


class DamagedVersionError(RegistryError):
    """Files of a registered version are not as they were registered; the text names them."""


class UnverifiedVersionError(RegistryError):
    """A registered version lacks the signature that is required, or its files are not those that were signed."""

    exit_status = 2


class UnknownVersionError(RegistryError):
    """The registry has no such version or registered model, or no version with such an alias."""

    exit_status = 2


class PipelineError(CxrError):
    """A pipeline run failed; the text names the step, whose error message is in the log of the run."""


class ClusterError(CxrError):
    """Kubeflow Pipelines cannot be reached or refuses a request, or a run or schedule there failed."""


class SignatureError(CxrError):
    """A webhook message has a wrong signature, was altered or is out of date; it is ignored."""


class ServiceError(CxrError):
    """The service cannot start; the text is the error of its first worker that failed."""

    def __init__(self, text: str, exit_status: int) -> None:
        """Store the error of the worker.

        Args:
            text: its message.
            exit_status: its exit status.
        """
        self.exit_status = exit_status
        super().__init__(text)
