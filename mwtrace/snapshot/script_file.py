"""A script in a place where a process can read it, and only for as long as it is needed.

It lies in the process's own root (its container's, its chroot's), belongs to its user, and the
script removes itself when it has run: that is how we know. The folders there are the process's
to play with, so none is entered by a link that leads out. It must not know who runs the script.
"""

from __future__ import annotations

import errno
import os
import re
import secrets

from mwtrace.capi import lib
from mwtrace.errors import ProcessError, ProcessGone

# The first that takes a file. A service under systemd has a /tmp of its own there.
_FOLDERS = ("/dev/shm", "/tmp", "/var/tmp", "/run")
_IDS = re.compile(rb"^(Uid|Gid):[ \t]*(?:\d+[ \t]+){3}(\d{1,10})[ \t]*$", re.M)

# What the process's own code raised meanwhile, from a signal handler that ran inside ours, is
# its own to see: it is raised once more, behind us.
_AROUND = """\
try:
    exec(compile({source!r}, '<mwtrace>', 'exec'), {{'__name__': '_mwtrace'}})
except Exception:
    pass
except BaseException as _mw_error:
    import _thread, ctypes
    if isinstance(_mw_error, KeyboardInterrupt):
        _thread.interrupt_main()
    else:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(_thread.get_ident()), ctypes.py_object(type(_mw_error)))
finally:
    try:
        __import__('os').unlink({path!r})
    except OSError:
        pass
"""


class ScriptFile:
    """One script; a context manager that leaves no file behind.

    Raises ProcessGone, or ProcessError if no folder takes it.
    """

    def __init__(self, pid: int, source: str) -> None:
        self._name = f"mwtrace-{secrets.token_hex(8)}.py"
        self._folder_fd = -1
        tried = []
        uid, gid = _file_ids(pid)
        for folder in _FOLDERS:
            descriptor = lib.mw_open_in_root(pid, folder.encode())
            if descriptor == -errno.ESRCH:
                raise ProcessGone(f"process {pid} is gone")
            if descriptor < 0:
                tried.append(f"{folder}: {os.strerror(-descriptor)}")
                continue
            self.path = f"{folder}/{self._name}"
            text = _AROUND.format(source=source, path=self.path)
            try:
                self._put(descriptor, text.encode(), uid, gid)
            except OSError as error:
                tried.append(f"{folder}: {error.strerror}")
                os.close(descriptor)
                continue
            self._folder_fd = descriptor
            return
        raise ProcessError(
            f"cannot put a file where process {pid} could read it ({'; '.join(tried)})",
            "It needs a writable /tmp or /dev/shm in its own root.",
        )

    def _put(self, folder_fd: int, data: bytes, uid: int, gid: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._name, flags, 0o400, dir_fd=folder_fd)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if (uid, gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, uid, gid)
                file.write(data)
        except OSError:
            os.unlink(self._name, dir_fd=folder_fd)
            raise

    def is_there(self) -> bool:
        """Whether it has not run to its end yet."""
        try:
            os.stat(self._name, dir_fd=self._folder_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def __enter__(self) -> ScriptFile:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.unlink(self._name, dir_fd=self._folder_fd)
        except OSError:
            pass  # it removed itself, or its whole root went away
        finally:
            os.close(self._folder_fd)


def _file_ids(pid: int) -> tuple[int, int]:
    """Return the user and group that the kernel asks for when the process opens a file."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            found = {name: int(number) for name, number in _IDS.findall(file.read(16_384))}
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessGone(f"process {pid} is gone") from error
    return found.get(b"Uid", 0), found.get(b"Gid", 0)
