"""What the process that runs codecs may not do, taken from it by the kernel: reach a network, start a program, write.

Knows no codec. A seccomp filter (seccomp(2)): system calls of the table fail with EPERM, and so does opening a file to
write; Linux on x86-64 and ARM64. It needs no privilege, works in containers, and cannot be taken back. Reading stays
allowed, for codecs are imported late. Where a kernel has no seccomp, the limits of `sandbox` and of the service unit
(`PrivateNetwork=yes`) hold alone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

# System calls by number: (x86-64, ARM64); None where the machine has no such call (asm/unistd.h).
_FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198), "io_uring_setup": (425, 425), "execve": (59, 221), "execveat": (322, 281),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kill": (62, 129),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "openat2": (437, 437),
    "creat": (85, None), "truncate": (76, 45), "unlink": (87, None), "unlinkat": (263, 35), "rmdir": (84, None),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37),
    "symlink": (88, None), "symlinkat": (266, 36), "mkdir": (83, None), "mkdirat": (258, 34), "chmod": (90, None),
    "fchmodat": (268, 53), "chown": (92, None), "fchownat": (260, 54), "mknod": (133, None), "mknodat": (259, 33),
    "utimensat": (280, 88),
}  # fmt: skip
_OPEN: dict[str, tuple[int | None, int | None, int]] = {"open": (2, None, 1), "openat": (257, 56, 2)}
"""The calls that open, and which of their arguments holds the flags."""
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of the table above, and AUDIT_ARCH of linux/audit.h."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # linux/bpf_common.h
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM  # linux/seccomp.h
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000  # another numbering of the same calls on x86-64
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _PR_SET_NO_NEW_PRIVS = 22, 2, 38

Instruction = tuple[int, int, int, int]


def confine() -> bool:
    """Take network, programs and writing from this process for good; False where this machine cannot."""
    column, architecture = _MACHINES.get(platform.machine(), (None, 0))
    if column is None or sys.platform != "linux":
        return False
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in _program(column, architecture))
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))  # struct sock_fprog
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(program), 0, 0) == 0)


def _program(column: int, architecture: int) -> list[Instruction]:
    """Write the filter: a foreign numbering is refused, then the table, then writing opens; the rest is allowed."""
    refuse: Instruction = (_RETURN, 0, 0, _REFUSE)
    code: list[Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), refuse]
    code += [(_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _X32), refuse]
    for numbers in _FORBIDDEN.values():
        if (number := numbers[column]) is not None:
            code += [(_EQUAL, 0, 1, number), refuse]
    for *by_machine, flags in _OPEN.values():
        if (number := by_machine[column]) is not None:
            flags_at = _ARGUMENTS + 8 * flags  # the lower half: both machines are little endian
            code += [(_EQUAL, 0, 4, number), (_LOAD, 0, 0, flags_at), (_ANY_BIT, 0, 1, _WRITES), refuse]
            code += [(_RETURN, 0, 0, _ALLOW)]
    return [*code, (_RETURN, 0, 0, _ALLOW)]
