"""Taking rights away from the process that calls it: what only computes needs no files, network or other processes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import struct
import sys
from pathlib import Path

ALLOWED: dict[str, dict[str, int]] = {
    "x86_64": {
        "read": 0, "write": 1, "readv": 19, "close": 3, "fstat": 5, "lseek": 8,
        "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12,
        "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "sched_yield": 24, "mremap": 25, "madvise": 28,
        "nanosleep": 35, "setitimer": 38, "getpid": 39, "exit": 60, "gettid": 186, "futex": 202,
        "restart_syscall": 219, "clock_gettime": 228, "clock_nanosleep": 230, "exit_group": 231, "getrandom": 318,
        "sigaltstack": 131,
    },
    "aarch64": {
        "close": 57, "lseek": 62, "read": 63, "write": 64, "readv": 65, "fstat": 80,
        "exit": 93, "exit_group": 94, "futex": 98,
        "nanosleep": 101, "setitimer": 103, "clock_gettime": 113, "clock_nanosleep": 115, "sched_yield": 124,
        "restart_syscall": 128, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139,
        "getpid": 172, "gettid": 178, "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226,
        "madvise": 233, "getrandom": 278,
    },
}  # fmt: skip
"""Numbers of the system calls that are left, by processor. All others fail: opening, connecting, forking."""

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050001
"""Answers of the filter; the last makes a call fail with EPERM."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))


def confine(memory_bytes: int, files: int) -> list[str]:
    """Give up, for good, what a process that only computes can do without.

    No file can be written, no core is dumped, no file is opened beyond those that are open, no process is started,
    and memory is bounded. On Linux (x86-64, ARM64) a filter moreover refuses every system call that is not in
    :data:`ALLOWED`. What a system doesn't offer is left out: macOS bounds no memory and has no such filter.

    Args:
        memory_bytes: memory that may be taken beyond what is taken now.
        files: files that may be open, those that are open included.

    Returns:
        What was given up: ``"files"``, ``"memory"``, ``"processes"``, ``"privileges"``, ``"calls"``.
    """
    done = []
    library = ctypes.CDLL(None, use_errno=True)
    machine = platform.machine()  # opens a file, at its first call on some systems
    with contextlib.suppress(OSError, ValueError):
        limit = _address_space() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        done.append("memory")
    for kind, limit in ((resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, files)):
        resource.setrlimit(kind, (limit, limit))
    done.append("files")
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # a superuser is not bound by it
        done.append("processes")
    if sys.platform == "linux":
        if library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0:
            done.append("privileges")
            if _filter_calls(library, machine):
                done.append("calls")
    return done


def _address_space() -> int:
    """Bytes of address space that this process has; OSError where that isn't told."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _filter_calls(library: ctypes.CDLL, machine: str) -> bool:
    """Install the filter (seccomp); False where the processor or the kernel has none."""
    if machine not in ALLOWED:
        return False
    numbers = sorted(ALLOWED[machine].values())
    steps = [
        (_LOAD, 0, 0, 4),
        (_JUMP_IF_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
    ]
    # A hit jumps over the rest of the list and over the refusal.
    steps += [(_JUMP_IF_EQUAL, len(numbers) - index, 0, number) for index, number in enumerate(numbers)]
    steps += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.cast(code, ctypes.c_void_p))
    return bool(library.prctl(_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0)
