"""Fields of the steps that can divide the images into shards: processes on one machine, tasks on a cluster."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from cxr.cpu import available_cores
from cxr.errors import MissingInputError
from cxr.images.shards import Shard
from cxr.steps.base import Step

if TYPE_CHECKING:
    from cxr.images.result_cache import ResultCache


def _check_shard(text: str) -> str:
    return str(Shard.parse(text))


ShardText = Annotated[str, AfterValidator(_check_shard)]
"""A shard such as ``2/10``."""
_UNLIMITED_BYTES = 2**62
"""Size of the results of a shard, which are an output: none of them is removed."""
SHARD_DESCRIPTION = "Part of the images to work on, NUMBER/COUNT, for example 2/10"


class ShardedStep(Step):
    """A step that can let several processes work on the images; its outputs do not depend on their number."""

    shards: Annotated[
        int, Field(ge=1, le=64, description="Processes of this machine that share the images; 1: the step itself.")
    ] = 1

    @abstractmethod
    def step_of_shard(self, shard: Shard, folder: Path) -> Step:
        """Make the step that works on a shard.

        Args:
            shard: the part of the images.
            folder: folder that this step writes.

        Returns:
            The step.
        """

    def run_shards(self, folder: Path) -> None:
        """Work on all shards, each in a process of its own.

        Args:
            folder: folder in which each shard gets a folder, named by its number.
        """
        from cxr.images.shard_processes import run_in_processes

        # A new step: what this one has opened cannot be passed to another process.
        step = self.build(self.model_dump())
        run_in_processes(partial(_run_shard, step, folder), self.shards)

    @contextmanager
    def results_of_shards(self, collected: Path | None) -> Iterator[Path | None]:
        """Let processes work on the shards, unless the work was done elsewhere, or there is one shard.

        Args:
            collected: folder with one folder for each shard, from elsewhere; None if there is none.

        Yields:
            Folder with one folder for each shard; None if there is none.

        Raises:
            MissingInputError: if the folder from elsewhere does not exist.
            PipelineError: if a shard failed twice.
        """
        from cxr.files import scratch_folder

        if collected is not None and not collected.is_dir():
            raise MissingInputError(
                f"expected a folder with one folder for each shard, received {collected}, which does not exist; run "
                "the shards first, or leave it out"
            )
        if collected is not None or self.shards == 1:
            yield collected
            return
        with scratch_folder() as folder:
            self.run_shards(folder)
            yield folder

    def threads_of_shard(self, workers: int | None) -> int:
        """Threads of each process: as many as were asked for, or a share of the cores."""
        return workers or max(1, available_cores() // self.shards)


def open_shard_cache(results: Path, shard: Shard, cache: Path) -> ResultCache:
    """Open the results of single images that a shard writes for the step that collects them.

    Args:
        results: folder of the shard, which is written in any case, so that it also arrives if the shard is empty.
        shard: the shard.
        cache: results of earlier runs, which are only read.

    Returns:
        The results.
    """
    from cxr.images.result_cache import ResultCache
    from cxr.lineage.code_version import code_version

    shard.write(results)
    return ResultCache(results, _UNLIMITED_BYTES, code_version, [cache])


def _run_shard(step: ShardedStep, folder: Path, shard: Shard) -> None:
    step.step_of_shard(shard, folder / str(shard.number)).execute()
