"""Works on shards in processes of this machine, one process for each."""

from __future__ import annotations

import logging
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

from cxr.errors import CxrError, PipelineError
from cxr.images.shards import Shard, all_shards

log = logging.getLogger(__name__)


def run_in_processes(work: Callable[[Shard], None], count: int) -> None:
    """Call a function for each shard, in processes that run at the same time.

    A shard that fails, or whose process is killed, is tried again once, when the others have ended: it then has the
    memory of the machine for itself. What the other shards wrote stays.

    Args:
        work: a function that other processes can import; what a failed call left behind, the next one replaces.
        count: number of shards and processes.

    Raises:
        PipelineError: naming the shard that failed twice, and why.
    """
    for shard, reason in _run_together(work, all_shards(count)).items():
        log.warning("shard %s failed and is tried again alone: %s", shard, reason)
        for reason_again in _run_together(work, [shard]).values():
            raise PipelineError(f"expected shard {shard} to succeed, received twice: {reason_again}")


def _run_together(work: Callable[[Shard], None], shards: Sequence[Shard]) -> dict[Shard, str]:
    """Run each shard in a process; return why some failed."""
    context = multiprocessing.get_context("spawn")  # a forked process would inherit locks of running threads
    connections = [context.Pipe(duplex=False) for _ in shards]
    level = logging.getLogger("cxr").getEffectiveLevel()
    processes = [
        context.Process(target=_work_on, args=(work, shard, sender, level), name=f"shard {shard}")
        for shard, (_, sender) in zip(shards, connections, strict=True)
    ]
    failures: dict[Shard, str] = {}
    try:
        for process in processes:
            process.start()
        for _, sender in connections:
            sender.close()  # so that the receiver notices the end of a killed process
        for shard, process, (receiver, _) in zip(shards, processes, connections, strict=True):
            reason = _receive(receiver)
            process.join()
            if process.exitcode:
                ended = f"exit status {process.exitcode}" if process.exitcode > 0 else f"signal {-process.exitcode}"
                failures[shard] = reason or f"its process ended with {ended}; its own output is above"
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
                process.join()
        for receiver, _ in connections:
            receiver.close()
    return failures


def _receive(receiver: Connection) -> str:
    """Why a process failed; empty if it did not say."""
    try:
        return str(receiver.recv())
    except EOFError:
        return ""


def _work_on(work: Callable[[Shard], None], shard: Shard, sender: Connection, level: int) -> None:
    """Work on a shard, as the main function of a process."""
    logging.basicConfig(level=logging.WARNING, format=f"shard {shard}: %(message)s", stream=sys.stderr)
    logging.getLogger("cxr").setLevel(level)
    try:
        work(shard)
    except CxrError as error:
        sender.send(str(error))
        sys.exit(error.exit_status)
    except KeyboardInterrupt:  # the step that started the processes says so
        sys.exit(1)
