"""Operations on a node's WireGuard: its key, its place in the peer registry, its interface."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

from pyinfra import host
from pyinfra.api import FunctionCommand, QuoteString, StringCommand, operation
from pyinfra.api.host import Host
from pyinfra.api.state import State

from facts.host_state import PROGRAM
from facts.shared import shared_fact
from facts.wireguard import LiveInterface, WireGuard, WireGuardState
from operations.failure import fail, unreadable
from operations.files import INSTALLER, File, payload
from operations.files import plan as differing_files
from operations.systemd import command
from ppn.errors import PpnError
from ppn.inventory import Pool
from ppn.mesh.paths import CONFIG
from ppn.mesh.peers import KEEPALIVE_SECONDS, Interface, interface_of
from ppn.mesh.registry import Registry, load, record
from ppn.mesh.render import conf_path, drop_in_path, keeper_config, key_path, wg_quick

# A hard link, unlike a rename, fails when the name is taken: no key is ever replaced.
MAKE_KEY = r"""set -eu
umask 077
key=$1; folder=${key%/*}
mkdir -p "$folder"
new=$(mktemp "$folder/.key.XXXXXX")
trap 'rm -f "$new"' EXIT
wg genkey > "$new"
sync "$new"
ln -T "$new" "$key"
sync "$folder" """

# wg-quick takes a file by the name of an interface only.
CHECK_CONF = r"""folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
cp "$1" "$folder/check.conf" && wg-quick strip "$folder/check.conf" > /dev/null"""

FOREIGN = (
    "{name} exists, but wg-quick@{name}.service did not make it (interface_foreign): remove it with"
    " `ip link del {name}` and run again"
)


@operation()
def key(interface: str, registry: str) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Declare that a node has a WireGuard key of its own, made on the node, readable by root alone.

    An existing key is never replaced. A node whose key is recorded but gone is refused.

    + interface: the interface's name.
    + registry: the pool's peer registry, a file on this machine.

    **Example:**

    .. code:: python

        wireguard.key(name="Key", interface="ppn0", registry="inventories/mypool/peers.json")
    """
    state = shared_fact(WireGuard, interface=interface)
    if state is None:
        yield unreadable(f"WireGuard's key and state for {interface}")
        return
    path = key_path(interface)
    if state.key_mode is None:
        try:
            known = load(Path(registry)).keys.get(host.name)
        except PpnError as error:
            yield fail(str(error))
            return
        if known is not None:
            yield fail(
                f"node {host.name} has no WireGuard key, but {known} is recorded (key_lost): if it"
                f" was installed anew on purpose, remove its line from {registry} and run again"
            )
            return
        yield StringCommand("sh", "-c", QuoteString(MAKE_KEY), "ppn-key", QuoteString(path))
        return
    if (state.key_mode, state.key_owner) == ("0600", "root:root"):
        host.noop(f"{path} is there, for root alone")
        return
    yield StringCommand("chown", "root:root", QuoteString(path))
    yield StringCommand("chmod", "0600", QuoteString(path))


@operation()
def registered(
    interface: str, registry: str
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Declare that a node's public key is in the pool's peer registry, on this machine.

    Another key than the recorded one is refused, as SSH refuses a changed host key.

    + interface: the interface's name.
    + registry: the peer registry; made when it does not exist. Review it and commit it.

    **Example:**

    .. code:: python

        wireguard.registered(
            name="Peer registry", interface="ppn0", registry="inventories/mypool/peers.json"
        )
    """
    state = shared_fact(WireGuard, interface=interface)
    if state is None or (host.state.is_executing and state.public_key is None):
        yield unreadable(f"the public key of {interface}")
        return
    try:
        known = load(Path(registry))
        if state.public_key is not None and known.with_key(host.name, state.public_key) == known:
            host.noop(f"{host.name} is in {registry}")
            return
    except PpnError as error:
        yield fail(str(error))
        return
    yield FunctionCommand(record_key, (Path(registry), state.public_key or ""), {})


def record_key(state: State, host: Host, registry: Path, public: str) -> bool:
    """Add this host's key to the registry; runs on this machine.

    Returns:
        Whether it is recorded now.
    """
    try:
        record(registry, host.name, public)
    except PpnError as error:
        host.log_styled(str(error), fg="red")
        return False
    host.log(f"recorded: {host.name} has {public}")
    return True


@dataclass(frozen=True)
class Steps:
    """What has to be done to an interface.

    Args:
        files: paths to write.
        reload: let systemd read its unit again.
        enable: let it come up at boot.
        up: `start`, `restart` or nothing.
        synchronise: bring the running interface to its file.
    """

    files: tuple[str, ...] = ()
    reload: bool = False
    enable: bool = False
    up: str = ""
    synchronise: bool = False


@operation()
def interface(
    pool: Pool, registry: str, supervision: str
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Declare a node's WireGuard interface, from the inventory and the peer registry (MESH-04).

    A running interface is synchronised: tunnels that stay the same are not interrupted, and peers
    on their direct path stay there. Where the kernel has no WireGuard, the program that takes its
    place is held by systemd; one that runs on its own is restarted once.

    + pool: the sound nodes of the inventory.
    + registry: the peer registry, a file on this machine.
    + supervision: what is added to wg-quick's unit where the kernel has no WireGuard.

    **Example:**

    .. code:: python

        wireguard.interface(
            name="Interface", pool=pool, registry="inventories/mypool/peers.json", supervision=text
        )
    """
    state = shared_fact(WireGuard, interface=pool.interface)
    if state is None:
        yield unreadable(f"WireGuard's key and state for {pool.interface}")
        return
    try:
        wanted = interface_of(pool, expected_keys(pool, load(Path(registry))), host.name)
    except PpnError as error:
        yield fail(str(error))
        return
    if state.live is not None and not state.active:
        yield fail(FOREIGN.format(name=pool.interface))
        return
    addition = None if state.kernel else supervision
    steps = plan(wanted, state, addition)
    if steps == Steps():
        host.noop(f"{pool.interface} has its {len(wanted.peers)} peers")
        return
    if steps.files:
        text = payload(wanted_files(wanted, addition), steps.files)
        yield StringCommand("python3", "-I", "-c", QuoteString(INSTALLER), _stdin=text)
    unit = f"wg-quick@{pool.interface}.service"
    if steps.enable:
        yield command("enable", unit)
    if steps.enable or steps.reload:
        yield command("settle", unit)
    if steps.up:
        yield command(steps.up, unit)
    if steps.synchronise:
        yield StringCommand(PROGRAM, "mesh", "sync")


def expected_keys(pool: Pool, registry: Registry) -> Registry:
    """The registry as it will be when this run comes to the interface.

    While a run is prepared, nodes that take part in it may have no key yet. They will have one by
    then, so a stand-in makes a dry run announce what the run will do.
    """
    if host.state.is_executing:
        return registry
    joining = {one.name for one in host.state.active_hosts}
    for node in pool.nodes:
        if node.name in joining and node.name not in registry.keys:
            digest = hashlib.sha256(f"no key yet: {node.name}".encode()).digest()
            registry = registry.with_key(node.name, base64.b64encode(digest).decode())
    return registry


def wanted_files(wanted: Interface, supervision: str | None = None) -> dict[str, File]:
    """The files of an interface.

    Args:
        wanted: the interface as the inventory has it.
        supervision: what is added to wg-quick's unit; `None` where the kernel has WireGuard.
    """
    check = ("sh", "-c", CHECK_CONF, "ppn-check", "{}")
    files = {
        conf_path(wanted.interface): File(wg_quick(wanted), mode="0600", check=check),
        CONFIG: File(keeper_config(wanted)),
    }
    if supervision is not None:
        files[drop_in_path(wanted.interface)] = File(supervision)
    return files


def plan(wanted: Interface, state: WireGuardState, supervision: str | None = None) -> Steps:
    """What makes a node's interface as wanted.

    Args:
        wanted: the interface as the inventory has it.
        state: the interface as it is.
        supervision: what is added to wg-quick's unit; `None` where the kernel has WireGuard.
    """
    files = wanted_files(wanted, supervision)
    differing = differing_files(files, state.files)
    reload = state.needs_reload or drop_in_path(wanted.interface) in differing
    steps = Steps(differing, reload, not state.enabled)
    if not state.active:
        return replace(steps, up="start")
    if state.live is None or not (supervision is None or state.held):
        return replace(steps, up="restart")
    conf = files[conf_path(wanted.interface)].status.sha256
    stale = state.applied != conf or not is_live(wanted, state.live)
    return replace(steps, synchronise=stale)


def is_live(wanted: Interface, live: LiveInterface) -> bool:
    """Whether a running interface is as wanted, on whichever paths its peers are now."""
    owned = {key: peer.allowed for key, peer in live.peers.items()}
    allowed = wanted.allowed_ips(wanted.direct_in(owned))
    keepalives = dict.fromkeys(allowed) | {
        peer.public_key: KEEPALIVE_SECONDS
        for peer in wanted.peers
        if peer.has_tunnel and peer.keepalive
    }
    return (
        live.port == wanted.port
        and owned == {key: frozenset(networks) for key, networks in allowed.items()}
        and keepalives == {key: peer.keepalive for key, peer in live.peers.items()}
    )
