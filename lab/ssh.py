"""SSH to the nodes: a key of the lab's own, host keys from the consoles, one connection a node."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from lab.paths import LabPaths
from lab.topology import NODES, OPERATOR, LabNode
from ppn.durable import write_atomic
from ppn.run import CommandFailed, run

HOST_KEY = re.compile(r"node-host-key (ssh-ed25519 [A-Za-z0-9+/=]+)")
CONNECT = Path(__file__).with_name("connect.py")


def config(lab: LabPaths, interpreter: str) -> str:
    """The text of the lab's ssh configuration.

    Args:
        lab: whose nodes.
        interpreter: a Python to run the connecting script with.
    """
    into = f"nsenter --net={lab.namespace_path(OPERATOR)}"
    hosts = "".join(f"\nHost {node.name}\n    HostName {node.ssh_address}\n" for node in NODES)
    return f"""\
# Written by the lab. Works from anywhere on this machine: ssh -F {lab.ssh_config} server
Host *
    User root
    IdentityFile "{lab.ssh_key}"
    IdentitiesOnly yes
    UserKnownHostsFile "{lab.known_hosts}"
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    PasswordAuthentication no
    BatchMode yes
    LogLevel ERROR
    ConnectTimeout 30
    ServerAliveInterval 5
    ServerAliveCountMax 6
    ControlMaster auto
    ControlPath {lab.runtime_dir}/%n.ssh
    ControlPersist 300
    ProxyCommand {into} "{interpreter}" -I "{CONNECT}" %h %p
    ProxyUseFdpass yes
{hosts}"""


def known_hosts(keys: Mapping[str, str]) -> str:
    """The text of a known-hosts file, each node under its name and its address."""
    lines = [
        f"{node.name},{node.ssh_address} {keys[node.name]}\n" for node in NODES if node.name in keys
    ]
    return "".join(lines)


def host_key(console: str) -> str | None:
    """The host key a node last printed on its console, if it has."""
    found = HOST_KEY.findall(console)
    return found[-1] if found else None


def console_key(lab: LabPaths, node: LabNode) -> str | None:
    """A node's host key as its console shows it since its last start."""
    try:
        return host_key(lab.node(node.name).console_log.read_text(errors="replace"))
    except FileNotFoundError:
        return None


def make_keys(lab: LabPaths) -> None:
    """Make the lab's SSH authority and the operator's key with its certificate, unless there."""
    if lab.ssh_certificate.exists():
        return
    for key in (lab.ssh_authority, lab.ssh_key):
        key.unlink(missing_ok=True)
        words = ["-q", "-t", "ed25519", "-N", "", "-C", f"ppn-lab-{lab.name}"]
        run(["ssh-keygen", *words, "-f", str(key)], timeout=30)
    write_atomic(lab.ssh_trust, f"cert-authority {public(lab.ssh_authority)}".encode())
    signed = ["-q", "-s", str(lab.ssh_authority), "-I", f"lab {lab.name}", "-n", "root"]
    run(["ssh-keygen", *signed, str(lab.ssh_key.with_suffix(".pub"))], timeout=30)


def public(key: Path) -> str:
    """The line of a key's public half."""
    return key.with_suffix(".pub").read_text()


def write_config(lab: LabPaths) -> None:
    """Write the ssh configuration and the known hosts, where they differ from what is there."""
    keys = {node.name: console_key(lab, node) for node in NODES}
    known = {name: key for name, key in keys.items() if key is not None}
    write_if_changed(lab.known_hosts, known_hosts(known))
    write_if_changed(lab.ssh_config, config(lab, sys.executable))


def write_if_changed(path: Path, text: str) -> None:
    """Replace a file only when its text would change."""
    if not path.exists() or path.read_text() != text:
        write_atomic(path, text.encode())


def command(lab: LabPaths, node: str, words: list[str]) -> list[str]:
    """The ssh command line for a node, over the one connection that is kept to it.

    Args:
        lab: whose node.
        node: its name.
        words: what to run there, with or without ``--`` in front; empty for a shell.
    """
    said = words[1:] if words[:1] == ["--"] else words
    return ["ssh", "-F", str(lab.ssh_config), node, *(["--", *said] if said else [])]


def reachable(lab: LabPaths, node: str, timeout: float = 60) -> bool:
    """Whether a node lets us in and runs a program."""
    try:
        argv = command(lab, node, ["true"])
        return run(argv, timeout=timeout, accept=(0, 255)).returncode == 0
    except CommandFailed:
        return False


def hang_up(lab: LabPaths, node: str) -> None:
    """End the node's kept connection, if there is one."""
    if (lab.runtime_dir / f"{node}.ssh").exists():
        argv = ["ssh", "-F", str(lab.ssh_config), "-O", "exit", node]
        run(argv, timeout=60, accept=(0, 255))
