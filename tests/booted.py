"""A systemd that really boots, with the mwtrace of this tree in it; see tests/tools/boot-systemd.

Everything in it is this machine's, read-only, but for /etc, /var and /run, which are its own and in
memory. ``stop()`` leaves no process, mount, namespace or cgroup behind.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

BOOT = Path(__file__).parent / "tools" / "boot-systemd"
SOURCE = Path(__file__).parents[1]
DEADLINE_S = 60.0
_POLL_S = 0.05
_PR_SET_PDEATHSIG = 1
_COPIED = ("passwd", "group", "ld.so.cache", "ld.so.conf", "nsswitch.conf", "os-release")
# They would ask for devices, networks, terminals or clocks of the host, and time for it.
_MASKED = (
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-kernel.socket",
    "systemd-udevd-control.socket",
    "systemd-modules-load.service",
    "systemd-sysctl.service",
    "systemd-binfmt.service",
    "systemd-logind.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "systemd-random-seed.service",
    "systemd-update-utmp.service",
    "systemd-firstboot.service",
    "systemd-pstore.service",
    "systemd-ask-password-wall.path",
    "systemd-ask-password-console.path",
    "proc-sys-fs-binfmt_misc.automount",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-kernel-config.mount",
    "sys-fs-fuse-connections.mount",
    "kmod-static-nodes.service",
    "getty.target",
    "dbus.service",
    "dbus.socket",
    "e2scrub_reap.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "fstrim.timer",
    "e2scrub_all.timer",
    "logrotate.timer",
    "man-db.timer",
)


def refusal() -> str | None:
    """Say why nothing can be booted here; None if it can."""
    if os.geteuid() != 0:
        return "needs root"
    for program in ("unshare", "nsenter", "setpriv", "pivot_root"):
        if not shutil.which(program):
            return f"needs {program}, of util-linux"
    if not Path("/lib/systemd/systemd").exists():
        return "needs the package systemd"
    if not Path("/bin").is_symlink():
        return "needs a merged /usr"
    return None


class Booted:
    """One system from construction to ``stop()``."""

    def __init__(self, folder: Path) -> None:
        self.name = f"mwtrace-boot-{os.getpid()}-{time.monotonic_ns()}"
        self._make_etc(folder / "etc")
        self._log = folder / "boot.log"
        site = sysconfig.get_paths()["purelib"]
        binds = [f"{SOURCE}:/opt/mwtrace", f"{site}:/opt/site-packages"]
        if not sys.base_prefix.startswith("/usr"):
            binds.append(f"{sys.base_prefix}:{sys.base_prefix}")
        with self._log.open("wb") as log:
            self._unshare = subprocess.Popen(
                [BOOT, folder, self.name, *binds],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_us,
                start_new_session=True,
            )
        try:
            self.pid = self._inner_pid()
            self.wait_for(self._is_up, "boot")
        except BaseException:
            self.stop()
            raise

    def run(self, *words: object, check: bool = True, within_s: float = DEADLINE_S) -> str:
        """Run a command inside; return what it printed."""
        command = ["nsenter", "-t", str(self.pid), "-a", *map(str, words)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=within_s
        )
        if check and done.returncode != 0:
            why = "" if words[0] == "journalctl" else self.run("journalctl", "-n", 20, check=False)
            raise AssertionError(f"{words}: {done.stdout}{done.stderr}{why}")
        return done.stdout + done.stderr

    def mwtrace(self, *words: object, check: bool = True) -> str:
        """Run the mwtrace of this tree inside."""
        environment = ["env", "PYTHONPATH=/opt/mwtrace:/opt/site-packages"]
        return self.run(*environment, python(), "-m", "mwtrace", *words, check=check)

    def show(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", unit, "--property", name, "--value").strip()

    def main_pid(self, unit: str) -> int:
        """Return the pid of a service as this machine knows it; 0 if it has none."""
        inner = int(self.show(unit, "MainPID"))
        if not inner:
            return 0
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                text = status.read_text()
            except OSError:
                continue
            line = next((line for line in text.splitlines() if line.startswith("NSpid:")), "")
            pids = [int(word) for word in line.split()[1:]]
            if len(pids) == 2 and pids[1] == inner and self._is_inside(pids[0]):
                return pids[0]
        return 0

    def write(self, path: str, text: str) -> None:
        """Write a file inside."""
        (Path(f"/proc/{self.pid}/root") / path.lstrip("/")).write_text(text)

    def read(self, path: str) -> str:
        return (Path(f"/proc/{self.pid}/root") / path.lstrip("/")).read_text()

    def journal(self, unit: str) -> str:
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit)

    def wait_for(
        self, is_so: Callable[[], object], what: str, within_s: float = DEADLINE_S
    ) -> None:
        deadline = time.monotonic() + within_s
        while not is_so():
            assert time.monotonic() < deadline, (
                f"no {what} in {within_s} s: {self._log.read_text()}"
            )
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Kill it: with PID 1 its namespaces end, and every process and mount in them."""
        if self._unshare.poll() is None:
            os.kill(self._unshare.pid, signal.SIGKILL)
        self._unshare.wait(DEADLINE_S)
        for tree in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
            if (tree / self.name).is_dir():
                _remove_cgroup(tree / self.name)

    def _is_up(self) -> bool:
        assert self._unshare.poll() is None, self._log.read_text()
        state = self.run("systemctl", "is-system-running", check=False).strip()
        return state in ("running", "degraded")

    def _inner_pid(self) -> int:
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        self.wait_for(
            lambda: self._unshare.poll() is not None or _comm(children) == "systemd", "init"
        )
        assert self._unshare.poll() is None, self._log.read_text()
        return int(children.read_text().split()[0])

    def _is_inside(self, pid: int) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{self.pid}/ns/pid")
        except OSError:
            return False

    def _make_etc(self, etc: Path) -> None:
        system = etc / "systemd" / "system"
        system.mkdir(parents=True)
        for name in _COPIED:
            if Path("/etc", name).exists():
                shutil.copy(Path("/etc", name).resolve(), etc / name)
        (etc / "machine-id").write_text(os.urandom(16).hex() + "\n")
        (etc / "fstab").write_text("")
        for name in _MASKED:
            (system / name).symlink_to("/dev/null")
        (system / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
        # The mwtrace in it is not installed: it is this tree.
        (etc / "systemd" / "system.conf").write_text(
            "[Manager]\nDefaultEnvironment=PYTHONPATH=/opt/mwtrace:/opt/site-packages\n"
        )


def python() -> str:
    return os.path.realpath(sys.executable)


def _comm(children: Path) -> str:
    try:
        pid = children.read_text().split()[0]
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, IndexError):
        return ""


def _die_with_us() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _remove_cgroup(path: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while path.is_dir():
        for folder in sorted(path.rglob("*"), key=lambda p: -len(p.parts)):
            if folder.is_dir():
                _rmdir(folder)
        _rmdir(path)
        assert not path.is_dir() or time.monotonic() < deadline, f"{path} is still used"
        time.sleep(_POLL_S)


def _rmdir(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:
        pass  # the kernel has not let go of those who ended in it yet
