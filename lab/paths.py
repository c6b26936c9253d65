"""Where the lab keeps things. Imports nothing, so that an inventory may use it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

NAME = re.compile(r"[a-z][a-z0-9-]{0,19}")
DEFAULT_NAME = "default"


def cache_folder() -> Path:
    """What can be made again: images. `PPN_CACHE` moves it."""
    return Path(os.environ.get("PPN_CACHE") or Path.home() / ".cache/ppn")


def labs_folder() -> Path:
    """State of all labs. `PPN_LAB_HOME` moves it."""
    return Path(os.environ.get("PPN_LAB_HOME") or Path.home() / ".local/state/ppn/lab")


def current_name() -> str:
    """The lab that `PPN_LAB` names, as the lab's commands set it for programs they start."""
    return os.environ.get("PPN_LAB") or DEFAULT_NAME


@dataclass(frozen=True)
class NodePaths:
    """Files of one node.

    Args:
        folder: everything of this node.
        runtime: folder for its sockets, whose paths must be short.
        name: the node's name.
    """

    folder: Path
    runtime: Path
    name: str

    @property
    def console_log(self) -> Path:
        """What the node printed on its console since its last start."""
        return self.folder / "console.log"

    @property
    def process(self) -> Path:
        """Which process the node is."""
        return self.folder / "process.json"

    @property
    def boot(self) -> Path:
        """How the node was started and how long it took."""
        return self.folder / "boot.json"

    @property
    def upper(self) -> Path:
        """A container's own files, over the image's."""
        return self.folder / "upper"

    @property
    def work(self) -> Path:
        """The overlay's scratch folder."""
        return self.folder / "work"

    @property
    def root(self) -> Path:
        """Where a container's root is mounted, in its own mount namespace."""
        return self.folder / "root"

    @property
    def disk(self) -> Path:
        """A machine's disk, over the image's."""
        return self.folder / "disk.qcow2"

    @property
    def variables(self) -> Path:
        """An installed machine's firmware memory: keys, and what to boot."""
        return self.folder / "firmware.fd"

    @property
    def installing(self) -> Path:
        """The disk of a machine whose installation has not ended."""
        return self.folder / "installing.qcow2"

    @property
    def install_log(self) -> Path:
        """What the installer printed on the console."""
        return self.folder / "install.log"

    @property
    def site(self) -> Path:
        """The second medium of an installation: the signed settings of the site."""
        return self.folder / "site.iso"

    @property
    def qmp(self) -> Path:
        """A machine's control socket."""
        return self.runtime / f"{self.name}.qmp"


@dataclass(frozen=True)
class LabPaths:
    """Files of one lab.

    Args:
        name: the lab's name.
    """

    name: str = DEFAULT_NAME

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"{self.name!r} is no lab name: use up to 20 of a-z, 0-9 and -, a letter first"
            )

    @property
    def state_dir(self) -> Path:
        """All that `destroy` removes."""
        return labs_folder() / self.name

    @property
    def runtime_dir(self) -> Path:
        """Sockets; gone after `down`."""
        return Path("/run/ppn-lab") / self.name

    @property
    def lock(self) -> Path:
        """Held by whoever changes this lab."""
        return labs_folder() / f".{self.name}.lock"

    @property
    def settings(self) -> Path:
        """What kind of nodes this lab has, on which image."""
        return self.state_dir / "lab.json"

    @property
    def ssh_key(self) -> Path:
        """The operator's private key; its public half ends in `.pub`, its certificate in
        `-cert.pub`."""
        return self.state_dir / "ssh_key"

    @property
    def ssh_certificate(self) -> Path:
        """The operator's SSH certificate, which opens every node."""
        return self.state_dir / "ssh_key-cert.pub"

    @property
    def ssh_authority(self) -> Path:
        """The private key of the SSH certificate authority that every node trusts."""
        return self.state_dir / "ssh_ca"

    @property
    def ssh_trust(self) -> Path:
        """What a node's authorised keys are: the authority's certificates, and nothing else."""
        return self.state_dir / "authorized_keys"

    @property
    def known_hosts(self) -> Path:
        """Host keys, read from the nodes' consoles."""
        return self.state_dir / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        """For `ssh -F`: hosts named as the nodes."""
        return self.state_dir / "ssh_config"

    @property
    def peer_registry(self) -> Path:
        """The mesh's public keys."""
        return self.state_dir / "peers.json"

    @property
    def ledger(self) -> Path:
        """The pool's capability ledger."""
        return self.state_dir / "ledger.jsonl"

    @property
    def operator_key(self) -> Path:
        """The key that signs the ledger."""
        return self.state_dir / "operator.key"

    @property
    def operator_public_key(self) -> Path:
        """The key the nodes trust the ledger by."""
        return self.state_dir / "operator.pub"

    @property
    def ca_key(self) -> Path:
        """The key of the pool's certificate authority."""
        return self.state_dir / "ca.key"

    @property
    def ca_certificate(self) -> Path:
        """The certificate of the pool's authority: what the services trust."""
        return self.state_dir / "ca.crt"

    @property
    def customer(self) -> Path:
        """What the lab's customer has: its key, and its tunnel's configuration."""
        return self.state_dir / "customer"

    @property
    def customer_public_key(self) -> Path:
        """The WireGuard key the pool knows its customer by."""
        return self.customer / "public_key"

    @property
    def tiny_guest(self) -> Path:
        """The tiny guest's image folder: a link into the cache."""
        return self.state_dir / "images" / "tiny"

    def node(self, name: str) -> NodePaths:
        """Files of the node called `name`."""
        return NodePaths(self.state_dir / "nodes" / name, self.runtime_dir, name)

    def namespace(self, name: str) -> str:
        """Name of this lab's network namespace `name`."""
        return f"ppn-{self.name}-{name}"

    def namespace_path(self, name: str) -> Path:
        """The namespace as a file that `nsenter --net` takes."""
        return Path("/run/netns") / self.namespace(name)
