"""Run a program for which flock(2) fails, as on a file system that has none: ``without_flock.py ERRNO PROGRAM ...``.

The kernel itself refuses the call, by a seccomp filter that the program and its children inherit.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

SYS_FLOCK = {"x86_64": 73, "aarch64": 32}.get(platform.machine())
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # of classic BPF
FAIL, ALLOW = 0x00050000, 0x7FFF0000


class _Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def refuse_flock(errno: int) -> None:
    """Make flock fail in this process from now on. Raises OSError where that can't be done."""
    instructions = [
        (LOAD, 0, 0, 0),
        (JUMP_IF_EQUAL, 0, 1, SYS_FLOCK),
        (RETURN, 0, 0, FAIL | errno),
        (RETURN, 0, 0, ALLOW),
    ]
    program = _Program(len(instructions), b"".join(struct.pack("HBBI", *one) for one in instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program))):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), "no seccomp filter")


if __name__ == "__main__":
    refuse_flock(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
