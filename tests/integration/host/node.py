"""A hypervisor node for tests: a libvirtd of its own with real guests, away from this machine's."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import guest
from ppn.host.apply import apply as apply_spec
from ppn.host.model import NodeState
from ppn.host.paths import Paths
from ppn.host.spec import spec_from_json
from ppn.host.state import read_state
from ppn.run import Completed, run
from tests.host_root import write_hardware
from tests.integration.host import still

PPN = Path(sys.executable).with_name("ppn")
# In a mount namespace of its own the daemon's fixed folders are the test's; KVM is not there.
START = """set -e
if [ "$2" ]; then
    # It shows the interfaces of the network it was mounted in.
    mount -t sysfs sysfs /sys
fi
mount --bind "$1/run" /run
mount --bind "$1/etc/libvirt" /etc/libvirt
mount --bind "$1/libvirt" /var/lib/libvirt
mount --bind "$1/cache" /var/cache/libvirt
mount --bind "$1/var/log/libvirt" /var/log/libvirt
if [ -e /dev/kvm ]; then
    # Read-only, for libvirt looks for KVM again at each call where it may open the device.
    : >"$1/no-kvm"
    mount --bind "$1/no-kvm" /dev/kvm
    mount -o remount,bind,ro /dev/kvm
fi
virtlogd -d -p "$1/virtlogd.pid"
exec libvirtd -f "$1/etc/libvirt/libvirtd.conf" -p "$1/libvirtd.pid"
"""
LIBVIRTD_CONF = """unix_sock_dir = "{sockets}"
auth_unix_rw = "none"
unix_sock_group = "root"
log_outputs = "2:file:{log}"
"""
QEMU_CONF = """user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
"""


def wait_for(what: str, probe: Callable[[], Any], seconds: float = 600) -> Any:
    """Ask again until the answer is true, and return it."""
    end = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if answer := probe():
            return answer
        now = time.monotonic()
        if now > end:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        # What is waited for needs the processors too.
        time.sleep(max(0.1, now - asked))


# What QEMU says of a processor that tells why it does not go on.
TELLING = ("CPU#", "RIP=", "CR3", "LVTT", "Timer", "ISR", "IRR")


@dataclass
class Node:
    """One node: its root folder, and how to reach its libvirt.

    Args:
        root: its folder.
        enter: the words before a command that run it in the node's network.
    """

    root: Path
    enter: tuple[str, ...] = ()

    @property
    def paths(self) -> Paths:
        return Paths(self.root)

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.root}/sockets/libvirt-sock"

    @property
    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "PPN_ROOT": str(self.root), "PPN_LIBVIRT_URI": self.uri}

    def prepare(self, image: Path) -> None:
        """Lay the node's folders: 8 cores, 4 GiB, the given image and the still one, no cgroups."""
        write_hardware(self.root, cores=8, memory_mib=4096)
        for folder in (
            "run/libvirt",
            "run/lock",
            "etc/libvirt/qemu",
            "libvirt",
            "cache",
            "sockets",
            "var/log/libvirt/qemu",
        ):
            (self.root / folder).mkdir(parents=True)
        conf = self.root / "etc/libvirt"
        (conf / "libvirtd.conf").write_text(
            LIBVIRTD_CONF.format(sockets=self.root / "sockets", log=self.root / "libvirtd.log")
        )
        (conf / "qemu.conf").write_text(QEMU_CONF)
        self.paths.images.mkdir(parents=True)
        self.paths.image("tiny").symlink_to(image)
        still.build(self.paths.image(still.NAME))

    def start(self) -> subprocess.Popen[bytes]:
        """Start the node's daemons and wait until they answer."""
        argv = (
            *self.enter,
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            START,
            "sh",
        )
        with (self.root / "daemons.log").open("wb") as log:
            daemon = subprocess.Popen(
                [*argv, str(self.root), *self.enter[:1]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for("libvirtd", lambda: self.listens() or daemon.poll() is not None)
        assert daemon.poll() is None, (self.root / "daemons.log").read_text()
        return daemon

    def listens(self) -> bool:
        """Whether libvirtd takes connections; its socket's path is there a moment before."""
        with socket.socket(socket.AF_UNIX) as caller:
            return caller.connect_ex(str(self.root / "sockets/libvirt-sock")) == 0

    def stop(self, daemon: subprocess.Popen[bytes]) -> None:
        """End every guest and both daemons, each by its process id."""
        for file in self.guest_pid_files():
            end_process(int(file.read_text()))
        # By force: asked to end, libvirtd now and then waits 30 s for a thread of its own.
        daemon.kill()
        daemon.wait(timeout=60)
        end_process(int((self.root / "virtlogd.pid").read_text()))

    def ppn(
        self, *words: str, text: str | None = None, accept: tuple[int, ...] = (0,)
    ) -> Completed:
        """Run the `ppn` command on this node."""
        return run(
            [*self.enter, PPN, *words],
            timeout=300,
            input=text,
            accept=accept,
            env=dict(self.environment),
        )

    def apply(self, **spec: Any) -> dict[str, Any]:
        """`ppn host apply` of a spec; the outcome as it was printed."""
        found: dict[str, Any] = json.loads(self.ppn("host", "apply", text=spec_text(spec)).stdout)
        return found

    def refused(self, **spec: Any) -> dict[str, Any]:
        """The refusal that `ppn host apply` ends with."""
        done = self.ppn("host", "apply", "--json", text=spec_text(spec), accept=(3,))
        error: dict[str, Any] = json.loads(done.stderr)["error"]
        return error

    def state(self) -> NodeState:
        """`ppn host state --json`, read back."""
        return NodeState.model_validate_json(self.ppn("host", "state", "--json").stdout)

    def virsh(self, *words: str | Path) -> str:
        """What virsh, another client of libvirt, says."""
        return run(["virsh", "-q", "-c", self.uri, *words], timeout=300).stdout

    def domains(self) -> list[str]:
        """Every domain libvirt knows."""
        return self.virsh("list", "--all", "--name").split()

    def monitor(self, vm: str, command: str) -> Any:
        """The answer of the VM's own QEMU."""
        return self.order(vm, command, {})

    def order(self, vm: str, command: str, arguments: Mapping[str, Any]) -> Any:
        """The answer of the VM's own QEMU to a command with arguments."""
        order = {"execute": command} | ({"arguments": dict(arguments)} if arguments else {})
        answer = json.loads(self.virsh("qemu-monitor-command", vm, json.dumps(order)))
        assert "return" in answer, answer
        return answer["return"]

    def serial(self, vm: str) -> str:
        """What the guest wrote to its serial console so far."""
        log = self.paths.vm(vm).serial_log
        return log.read_text(errors="replace") if log.exists() else ""

    def wait_ready(self, vm: str, boots: int = 1) -> dict[str, str]:
        """Wait for the guest's ready line of its n-th boot, and return its figures."""
        pattern = re.compile(r"^ppn-guest ready (.*?)\r?\n", re.MULTILINE)

        def find() -> list[str]:
            found = pattern.findall(self.serial(vm))
            if len(found) < boots and not self.paths.pid_file(vm).exists():
                raise AssertionError(f"QEMU of vm {vm} has ended: {self.qemu_log(vm)}")
            return found if len(found) >= boots else []

        try:
            return figures(wait_for(f"vm {vm} to be ready", find)[-1])
        except AssertionError as late:
            late.add_note(f"the end of its console: {self.serial(vm)[-2000:]}")
            # Of a QEMU that has ended, its own last words are in the error and must stay there.
            if self.paths.pid_file(vm).exists():
                late.add_note(f"its processors: {self.processors(vm)}")
            raise

    def processors(self, vm: str) -> str:
        """Where a VM's processors are in their code, and what interrupts wait for them."""
        told: list[str] = []
        for words in ("info registers -a", "info lapic 0", "info lapic 1"):
            found = str(self.order(vm, "human-monitor-command", {"command-line": words}))
            told += [line for line in found.splitlines() if line.startswith(TELLING)]
        return "\n".join(told)

    def qemu_log(self, vm: str) -> str:
        """The end of what a VM's QEMU has said."""
        log = self.paths.qemu_log(vm)
        return log.read_text(errors="replace")[-2000:] if log.exists() else "no log"

    def beat(self, vm: str) -> dict[str, str]:
        """The figures of the guest's latest beat that was written whole; none before the first."""
        lines = self.serial(vm).rpartition("\n")[0].splitlines()
        beats = [line for line in lines if line.startswith("ppn-guest beat ")]
        return figures(beats[-1]) if beats else {}

    def clear(self) -> None:
        """Remove every VM where no agent runs; starting `ppn` takes longer than this."""
        for vm in read_state(self.paths, uri=self.uri).vms:
            absent = spec_from_json(spec_text({"name": vm.name, "state": "absent"}))
            apply_spec(absent, self.paths, uri=self.uri)

    def nothing_is_left(self) -> bool:
        """Whether no VM, file of a VM or guest process is on the node."""
        vms = list(self.paths.vms.iterdir()) if self.paths.vms.exists() else []
        return not self.domains() and not vms and not self.guest_pid_files()

    def guest_pid_files(self) -> list[Path]:
        """libvirt's record of each running guest; `driver` is libvirtd itself."""
        files = (self.root / "run/libvirt/qemu").glob("*.pid")
        return [file for file in files if file.stem != "driver"]


@contextmanager
def started(prefix: str) -> Iterator[Node]:
    """A node with its daemons, for the length of the block."""
    # Not pytest's folder: the path of a Unix socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix=prefix) as root:
        node = Node(Path(root))
        # The node proxy's user has to get as far as the agent's socket.
        node.root.chmod(0o755)
        node.prepare(guest.cached())
        daemon = node.start()
        try:
            # The first call of a fresh libvirtd looks at QEMU for long.
            node.virsh("domcapabilities")
            yield node
        finally:
            node.stop(daemon)


def spec_text(spec: Mapping[str, Any]) -> str:
    """A spec as JSON, with the tests' usual size; its guest starts one of the two processors."""
    usual = {"name": "web", "image": "tiny", "vcpus": 2, "memory_mib": 256, "disk_gib": 1}
    if "vcpus" not in spec:
        # Whom it does not matter to need not emulate the second one.
        usual["cmdline_extra"] = "maxcpus=1"
    return json.dumps(usual | dict(spec))


def figures(line: str) -> dict[str, str]:
    """The `key=value` words of a line."""
    return dict(word.split("=", 1) for word in line.strip().split() if "=" in word)


def end_process(pid: int) -> None:
    """Kill a process that is not our child, and wait until it is gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    wait_for(f"process {pid} to end", lambda: not is_alive(pid))


def is_alive(pid: int) -> bool:
    """Whether a process runs, one of its threads at least; one that waits to be reaped does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        # The latter is what a read says when it ended after the file was opened.
        return False
    fields = status.rpartition(")")[2].split()
    # Its files and locks are its own until the last thread has ended.
    return fields[0] != "Z" or int(fields[17]) > 1
