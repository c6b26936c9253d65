"""The network of a node's VMs as the kernel has it, and the record of who holds what of it.

The record are the sidecars. Whoever changes it holds the network's lock, puts the rules for the
changed record in force, and only then writes the record. A kill between the two leaves the old
record, and who comes next loads the rules that belong to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from ppn.errors import PpnError
from ppn.host.lease import Lease
from ppn.host.lock import node_lock
from ppn.host.model import NodeNetwork
from ppn.host.network import Guest, choose_lease, interface_of
from ppn.host.paths import Paths
from ppn.host.rules import no_rules, ruleset
from ppn.host.settings import read_settings
from ppn.host.sidecar import SidecarDamaged, read_sidecar
from ppn.host.spec import VmSpec
from ppn.host.state import read_network
from ppn.inventory import VM_BRIDGE
from ppn.run import run

SECONDS = 20
LOCK_SECONDS = 60.0
# The bridge leads nowhere, so it may be the same on every node; guests need not learn it anew.
BRIDGE_MAC = "0a:70:70:6e:00:01"
# No forward delay: a guest's first packet is not to be lost.
KIND = ("type", "bridge", "forward_delay", "0", "mcast_snooping", "0", "stp_state", "0")


@dataclass
class NetworkChange:
    """The record of the node's VM network, held by whoever may change it.

    Args:
        network: the node's; None when it has none, and then nothing happens here.
        guests: per VM what it holds.
        loaded: rules for another record than this have been put in force.
    """

    network: NodeNetwork | None
    guests: Mapping[str, Guest]
    loaded: bool = False

    def grant(self, spec: VmSpec, uuid: str, own: Lease | None) -> Lease | None:
        """What a VM gets; its rules are in force, and its sidecar is for the caller to write.

        Raises:
            Refusal: an address or a port that cannot be had; see `choose_lease`.
            CommandFailed: the rules could not be loaded.
        """
        if self.network is None:
            return own
        others = [guest.lease for name, guest in self.guests.items() if name != spec.name]
        lease = choose_lease(spec, self.network, others, own)
        guests = {**self.guests, spec.name: Guest(interface_of(uuid), lease)}
        self.loaded = True
        _load(self.network, guests.values())
        return lease

    def withdraw(self, name: str) -> None:
        """Close all that leads to a VM; its sidecar is for the caller to remove."""
        if self.network is not None:
            self.loaded = True
            _load(self.network, [guest for vm, guest in self.guests.items() if vm != name])

    def restore(self) -> None:
        """Put bridge and rules in force as the record has them."""
        if self.network is not None:
            _load(self.network, self.guests.values())


@contextmanager
def network_change(paths: Paths) -> Iterator[NetworkChange]:
    """Hold the record of the node's VM network.

    Args:
        paths: the node's files.

    Raises:
        NodeBusy: another process held it all the time.
        SettingsDamaged: the node's settings cannot be read.
    """
    with node_lock(paths.network_lock, timeout=LOCK_SECONDS):
        network = read_network(paths, read_settings(paths.settings))
        change = NetworkChange(network, dict(_guests(paths)) if network is not None else {})
        try:
            yield change
        except BaseException:
            if change.loaded:
                # The record may not have been written: its rules are the ones that hold.
                with suppress(PpnError):
                    NetworkChange(network, dict(_guests(paths))).restore()
            raise


def synchronise(paths: Paths) -> NetworkChange:
    """Make the VM network what the node's settings and its VMs' records say, after each boot.

    Returns:
        The record as it was put in force.
    """
    with network_change(paths) as change:
        if change.network is None:
            _take_down()
        else:
            _bring_up(change.network)
            change.restore()
        return change


def isolate(tap: str) -> None:
    """Let nothing pass from a running VM's tap to another one, even where no rules are loaded."""
    kind = ("type", "bridge_slave", "isolated", "on")
    run(["ip", "link", "set", "dev", tap, *kind], timeout=SECONDS)


def _guests(paths: Paths) -> Iterator[tuple[str, Guest]]:
    for path in sorted(paths.vms.glob("[!.]*/sidecar.json")):
        try:
            sidecar = read_sidecar(path)
        except SidecarDamaged:
            # The VM's state says so; until it is put right nothing leads to it.
            continue
        if sidecar is not None and sidecar.lease is not None:
            yield path.parent.name, Guest(interface_of(sidecar.uuid), sidecar.lease)


def _load(network: NodeNetwork, guests: Iterable[Guest]) -> None:
    if not _is_up(network):
        _bring_up(network)
    run(["nft", "-f", "-"], timeout=SECONDS, input=ruleset(network, guests))


def _is_up(network: NodeNetwork) -> bool:
    """Whether the bridge is whole: it is set up last of all."""
    link = _bridge()
    return link is not None and "UP" in link["flags"] and _addresses(link) == [_gateway(network)]


def _bridge() -> dict[str, Any] | None:
    """The bridge as `ip` shows it; None when there is none."""
    words = ["ip", "-json", "address", "show", "dev", VM_BRIDGE]
    shown = run(words, timeout=SECONDS, accept=(0, 1)).stdout
    return next((link for link in json.loads(shown or "[]") if link), None)


def _addresses(link: Mapping[str, Any]) -> list[str]:
    found = [address for address in link["addr_info"] if address["family"] == "inet"]
    return [f"{address['local']}/{address['prefixlen']}" for address in found]


def _gateway(network: NodeNetwork) -> str:
    return f"{network.gateway}/{IPv4Network(network.range).prefixlen}"


def _bring_up(network: NodeNetwork) -> None:
    link = _bridge()
    if link is None:
        run(["ip", "link", "add", VM_BRIDGE, "address", BRIDGE_MAC, *KIND], timeout=SECONDS)
    wanted = _gateway(network)
    if link is None or _addresses(link) != [wanted]:
        run(["ip", "-4", "address", "flush", "dev", VM_BRIDGE], timeout=SECONDS)
        run(["ip", "address", "add", wanted, "dev", VM_BRIDGE], timeout=SECONDS)
    _set("ipv6/conf", "disable_ipv6", "1")
    if network.internet:
        # Answers arrive on whatever interface leads outside.
        _write(Path("/proc/sys/net/ipv4/ip_forward"), "1")
    _set("ipv4/conf", "forwarding", "1")
    run(["ip", "link", "set", VM_BRIDGE, "up"], timeout=SECONDS)


def _take_down() -> None:
    run(["nft", "-f", "-"], timeout=SECONDS, input=no_rules())
    if _bridge() is not None:
        run(["ip", "link", "delete", VM_BRIDGE], timeout=SECONDS)


def _set(kind: str, key: str, value: str) -> None:
    setting = Path("/proc/sys/net") / kind / VM_BRIDGE / key
    # A kernel without IPv6 has nothing to switch off.
    if setting.exists():
        _write(setting, value)


def _write(setting: Path, value: str) -> None:
    try:
        setting.write_text(value)
    except OSError as error:
        raise PpnError(
            f"cannot set {setting} to {value}: {error.strerror}",
            code="kernel_setting_failed",
            hint="run as root, where the kernel's network settings may be written",
        ) from error
