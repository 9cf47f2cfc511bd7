"""Drops rights of the calling process: a process that only computes needs no files, network or other processes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import struct
import sys
from pathlib import Path

ALLOWED_CALLS: dict[str, dict[str, int]] = {
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
"""Numbers of the system calls that stay allowed, by processor. All others fail, such as open, connect and fork."""

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050001
"""Results of the filter; the last one makes a call fail with EPERM."""


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def drop_rights(memory_bytes: int, files: int) -> list[str]:
    """Permanently drop the rights that a computing process does not need.

    After it no file can be written, no core is dumped, no file is opened beyond those that are open, no process is
    started, and memory is limited. On Linux (x86-64, ARM64) a filter (seccomp) also refuses every system call that is
    not in :data:`ALLOWED_CALLS`. A right that the system cannot drop is skipped: macOS limits no memory and has no such
    filter.

    Args:
        memory_bytes: memory that may be allocated beyond the memory in use now.
        files: number of files that may be open, including those that are open now.

    Returns:
        What was dropped: ``"files"``, ``"memory"``, ``"processes"``, ``"privileges"``, ``"calls"``.
    """
    dropped = []
    libc = ctypes.CDLL(None, use_errno=True)
    machine = platform.machine()  # its first call opens a file on some systems
    with contextlib.suppress(OSError, ValueError):
        limit = _address_space() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        dropped.append("memory")
    for kind, limit in ((resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, files)):
        resource.setrlimit(kind, (limit, limit))
    dropped.append("files")
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # it does not bind a superuser
        dropped.append("processes")
    if sys.platform == "linux":
        if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0:
            dropped.append("privileges")
            if _filter_calls(libc, machine):
                dropped.append("calls")
    return dropped


def _address_space() -> int:
    """Return the size in bytes of this process's address space; raise OSError where the system does not tell."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _filter_calls(libc: ctypes.CDLL, machine: str) -> bool:
    """Install the seccomp filter; return False where the processor or the kernel does not support it."""
    if machine not in ALLOWED_CALLS:
        return False
    numbers = sorted(ALLOWED_CALLS[machine].values())
    instructions = [
        (_LOAD, 0, 0, 4),
        (_JUMP_IF_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
    ]
    # A match jumps over the remaining numbers and over the refusal.
    instructions += [(_JUMP_IF_EQUAL, len(numbers) - index, 0, number) for index, number in enumerate(numbers)]
    instructions += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *fields) for fields in instructions))
    program = _FilterProgram(len(instructions), ctypes.cast(code, ctypes.c_void_p))
    return bool(libc.prctl(_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0)
