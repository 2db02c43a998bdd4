"""Hosts for a test of `ray up`, on one machine: network, process, mount and host-name namespaces with an sshd in each.

They live as long as the process that made them, and leave nothing behind: what they mount and write, but for the
shared folder, is in memory, and goes with the namespaces. Needs root, and Debian's openssh-server, rsync, iproute2.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers import CHECKOUT

NETWORK = "10.99.77"
HOME = "/tmp/home"  # of root, on each host: a file system in memory
SHARED = "/mnt"
"""Where every host sees the folder that they share."""

TOOLS = ("ip", "mount", "nsenter", "rsync", "ssh", "ssh-keygen", "sshd", "unshare")


# The shell is process 1 of its host, and so the one to reap what Ray's daemons leave.
INIT = """
set -e
mount --make-rprivate /
mkdir -p {shared}/hosts/{name} && cd {shared}/hosts/{name}
mount -t tmpfs -o size=1g tmpfs . && cd {shared}/hosts/{name}
mkdir -m 700 home
for path in {visible}; do
  case $path in /tmp/*) mkdir -p ./${{path#/tmp/}}; mount --bind $path ./${{path#/tmp/}};; esac
done
mount --bind {shared} {mnt}
mount --move {shared}/hosts/{name} /tmp
chmod 1777 /tmp
mount -t tmpfs -o size=4g tmpfs /dev/shm
mount -t tmpfs -o size=1m tmpfs /run
mkdir /run/sshd
mount --bind {mnt}/ssh/passwd /etc/passwd
hostname {name}
ip link set lo up
cd /
echo ready
{sshd} -D -e -f {mnt}/ssh/sshd_config &
while :; do wait -n || sleep 0.1; done
"""


def missing() -> str:
    """Why there can be no hosts here; empty if there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts in namespaces need Linux and root"
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where sshd is, which is not in every root's PATH
    lacking = [tool for tool in TOOLS if not shutil.which(tool)]
    if lacking:
        return f"no {', '.join(lacking)} here: apt-get install openssh-server rsync iproute2"
    tried = subprocess.run(["unshare", "--net", "--pid", "--fork", "--mount-proc", "true"], capture_output=True)
    return f"namespaces can't be made here: {tried.stderr.decode().strip()}" if tried.returncode else ""


@dataclass(frozen=True)
class Host:
    """One of them. ``pid``: of its process 1, as it is seen from outside."""

    name: str
    ip: str
    pid: int

    def command(self, *arguments: str, **environment: str) -> list[str]:
        """What runs a command on it: as a login would, with nothing of this process's environment."""
        variables = {"HOME": HOME, "USER": "root", "TERM": "dumb", "PATH": os.environ["PATH"]} | environment
        inside = ["nsenter", f"--target={self.pid}", "--net", "--mount", "--pid", "--uts", f"--wdns={HOME}"]
        return [*inside, "env", "-i", *(f"{name}={value}" for name, value in variables.items()), *arguments]

    def run(self, *arguments: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command on it to its end."""
        return subprocess.run(
            self.command(*arguments, **environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )

    def processes(self) -> list[str]:
        """The command lines of all that runs on it, but for zombies, its process 1, and what looks."""
        lines = self.run("ps", "-e", "-ww", "-o", "pid=,stat=,args=").stdout.splitlines()
        split = [line.split(None, 2) for line in lines]
        return [args for pid, stat, args in split if pid != "1" and stat[0] != "Z" and "pid=,stat=,args=" not in args]


@contextmanager
def hosts(names: Sequence[str], shared: Path) -> Iterator[dict[str, Host]]:
    """Hosts on one network, and its ends on .1, .2 and so on in the order of their names.

    All may log in to all others as root by {SHARED}/ssh/id. ``shared``: the folder behind SHARED, of which the host
    outside sees all.
    """
    with network(shared) as net:
        yield {name: net.start(name) for name in names}


@contextmanager
def network(shared: Path) -> Iterator[Network]:
    """A network without hosts, which end with it. ``shared``: as for :func:`hosts`."""
    _keys(shared)
    with ExitStack() as stack:
        switch = _namespaces(stack, "switch", "ip link set lo up; echo ready; exec sleep infinity")
        _ip(switch, "link", "add", "bridge", "type", "bridge")
        _ip(switch, "link", "set", "bridge", "up")
        yield Network(shared=shared, stack=stack, switch=switch)


@dataclass(frozen=True)
class Network:
    """Where hosts start, vanish and start again. ``switch``: the process that has the bridge."""

    shared: Path
    stack: ExitStack
    switch: int
    numbers: dict[str, int] = field(default_factory=dict)

    def start(self, name: str) -> Host:
        """Start a host; one that vanished has its address again."""
        number = self.numbers.setdefault(name, len(self.numbers) + 1)
        visible = " ".join(dict.fromkeys(map(str, (Path(sys.prefix), Path(sys.base_prefix), CHECKOUT))))
        script = INIT.format(name=name, shared=self.shared, visible=visible, mnt=SHARED, sshd=shutil.which("sshd"))
        pid = _namespaces(self.stack, name, script)
        _ip(self.switch, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        _ip(self.switch, "link", "set", f"to-{name}", "master", "bridge", "up")
        _ip(pid, "address", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
        _ip(pid, "link", "set", "eth0", "up")
        # Ray asks the kernel which address it would use to reach the internet
        _ip(pid, "route", "add", "default", "via", f"{NETWORK}.254")
        return Host(name=name, ip=f"{NETWORK}.{number}", pid=pid)

    def vanish(self, host: Host) -> None:
        """End a host as a power cut does: nobody on the network hears that its connections end."""
        _ip(self.switch, "link", "delete", f"to-{host.name}")
        os.kill(host.pid, signal.SIGKILL)
        while Path(f"/proc/{host.pid}").exists():
            time.sleep(0.05)


def _keys(shared: Path) -> None:
    """One key for all users and one for all hosts, and the accounts."""
    folder = shared / "ssh"
    folder.mkdir(mode=0o700)
    for name in ("id", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    accounts = Path("/etc/passwd").read_text().splitlines()
    others = [line for line in accounts if not line.startswith("root:")]
    (folder / "passwd").write_text("\n".join([f"root:x:0:0:root:{HOME}:/bin/bash", *others]) + "\n")
    (folder / "sshd_config").write_text(
        f"HostKey {SHARED}/ssh/host\n"
        f"AuthorizedKeysFile {SHARED}/ssh/id.pub\n"
        "StrictModes no\n"
        "PasswordAuthentication no\n"
        "UsePAM no\n"
        "PidFile none\n"
        "MaxStartups 100\n"
    )


def _namespaces(stack: ExitStack, name: str, script: str) -> int:
    """Start a shell in namespaces of its own; gives its process id. It ends with the stack, or with this process."""
    process = subprocess.Popen(
        [
            "unshare",
            "--net",
            "--mount",
            "--pid",
            "--uts",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "bash",
            "-c",
            script,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_die_with_parent,
    )
    stack.callback(_end, process)
    assert process.stdout is not None
    said = process.stdout.readline()
    if said != "ready\n":
        raise OSError(f"host {name} does not start: {said}{process.stdout.read()}")
    return _child(process)[0]


def _child(process: subprocess.Popen[str]) -> list[int]:
    """Process 1 of the namespaces that it made, as it is seen from here; nothing if it is gone."""
    try:
        return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _end(process: subprocess.Popen[str]) -> None:
    """With process 1 of a namespace, all others in it are killed, and the kernel undoes its mounts and links."""
    for pid in _child(process):
        os.kill(pid, signal.SIGKILL)
    process.communicate()


def _ip(pid: int, *arguments: str) -> None:
    subprocess.run(["nsenter", f"--target={pid}", "--net", "ip", *arguments], check=True)


def wait(seconds: float) -> Iterator[float]:
    """Again and again until that many seconds have passed; gives the seconds so far."""
    start = time.monotonic()
    while (so_far := time.monotonic() - start) < seconds:
        yield so_far
        time.sleep(0.3)
