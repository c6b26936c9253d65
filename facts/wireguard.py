"""Facts about a node's WireGuard: everything in one round trip, and no private key."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network

from pyinfra.api import FactBase, QuoteString, StringCommand
from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

from facts.files import FileStatus, parse_status
from facts.lines import STATUS, key_status, value, values, whole
from ppn.mesh.paths import CONFIG
from ppn.mesh.peers import Network
from ppn.mesh.render import conf_path, drop_in_path

# Of the key file only mode, owner and public half are printed. `wg` may not be installed yet.
SCRIPT = rf"""set -eu
{STATUS}
name=$1; key=/etc/wireguard/$1.key; shift
if [ -d /sys/module/wireguard ] || modprobe -nq wireguard; then echo kernel; fi
if [ -e "$key" ]; then
  echo "key $(stat -c '%a %U:%G' -- "$key")"
  if command -v wg > /dev/null; then public=$(wg pubkey < "$key"); echo "public $public"; fi
fi
for path in "$@"; do status "file " "$path"; done
if [ -e "/run/ppn/$name.applied" ]; then echo "applied $(cat "/run/ppn/$name.applied")"; fi
systemctl show --property=ActiveState,SubState,UnitFileState,NeedDaemonReload \
  "wg-quick@$name.service"
if ip -o link show dev "$name" > /dev/null 2>&1; then
  port=$(wg show "$name" listen-port); echo "port $port"
  peers=$(wg show "$name" allowed-ips); keepalives=$(wg show "$name" persistent-keepalive)
  printf '%s\n' "$peers" | sed -n 's/./peer &/p'
  printf '%s\n' "$keepalives" | sed -n 's/./keepalive &/p'
fi
echo end"""


@dataclass(frozen=True)
class LivePeer:
    """A peer of a running interface, without what changes by itself."""

    allowed: frozenset[Network]
    keepalive: int | None


@dataclass(frozen=True)
class LiveInterface:
    """A running interface: its UDP port, and its peers by public key."""

    port: int
    peers: dict[str, LivePeer]


@dataclass(frozen=True)
class WireGuardState:
    """What a node has of WireGuard.

    Args:
        kernel: whether its kernel has WireGuard; without it wg-quick uses wireguard-go.
        key_mode, key_owner: of the private key's file; `None` when there is none.
        public_key: `None` when there is no key, or `wg` is not installed.
        files: wg-quick's file, what is added to its unit, and the path keeper's configuration.
        applied: SHA-256 of the wg-quick file that is in force.
        enabled: whether the interface comes up at boot.
        active: whether systemd has it up, or is at it.
        held: whether systemd holds on to a program that is the interface.
        needs_reload: whether systemd has yet to read its unit again.
        live: the running interface, if there is one.
    """

    kernel: bool
    key_mode: str | None
    key_owner: str | None
    public_key: str | None
    files: dict[str, FileStatus | None]
    applied: str | None
    enabled: bool
    active: bool
    held: bool
    needs_reload: bool
    live: LiveInterface | None


class WireGuard(FactBase[WireGuardState | None]):
    """The key, configuration and running state of a WireGuard interface.

    Args:
        interface: the interface's name.

    Returns:
        The state, or `None` when any part of it could not be read.

    Example:
        `host.get_fact(WireGuard, interface="ppn0")`
    """

    @override
    @staticmethod
    def default() -> WireGuardState | None:
        return None

    @override
    def command(self, interface: str) -> StringCommand:
        words = ["ppn-wireguard", interface, *watched(interface)]
        return StringCommand(
            "sh", "-c", QuoteString(SCRIPT), *(QuoteString(word) for word in words)
        )

    @override
    def process(self, output: list[str]) -> WireGuardState | None:
        return parse(output)


def watched(interface: str) -> tuple[str, ...]:
    """The files of an interface whose content the fact tells."""
    return conf_path(interface), drop_in_path(interface), CONFIG


def parse(output: list[str]) -> WireGuardState:
    """The script's output as a state.

    Raises:
        FactProcessError: the output is cut off, or a line is not of the expected form.
    """
    mode, owner = key_status(whole(output, "WireGuard"))
    properties = dict(line.split("=", 1) for line in output if line.startswith(UNIT_PROPERTIES))
    if len(properties) != len(UNIT_PROPERTIES):
        raise FactProcessError("systemctl did not tell the state of wg-quick")
    applied = value(output, "applied") or ""
    return WireGuardState(
        kernel="kernel" in output,
        key_mode=mode,
        key_owner=owner,
        public_key=value(output, "public"),
        files=dict(map(parse_status, values(output, "file"))),
        applied=applied.partition(" ")[0] or None,
        enabled=properties["UnitFileState"] == "enabled",
        active=properties["ActiveState"] in ACTIVE,
        held=properties["SubState"] != "exited",
        needs_reload=properties["NeedDaemonReload"] == "yes",
        live=_live(output),
    )


UNIT_PROPERTIES = ("ActiveState", "SubState", "UnitFileState", "NeedDaemonReload")
# A restart by systemd is no reason to interfere.
ACTIVE = {"active", "activating", "reloading"}


def _live(output: list[str]) -> LiveInterface | None:
    port = value(output, "port")
    if port is None:
        return None
    try:
        keepalives = dict(line.split() for line in values(output, "keepalive"))
        peers = {}
        for line in values(output, "peer"):
            key, *networks = line.split()
            allowed = frozenset(ip_network(one) for one in networks if one != "(none)")
            every = keepalives[key]
            peers[key] = LivePeer(allowed, None if every == "off" else int(every))
        return LiveInterface(int(port), peers)
    except (ValueError, KeyError) as error:
        raise FactProcessError(f"unexpected output of wg show: {error!r}") from error
