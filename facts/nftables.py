"""Facts about ppn's own nftables table."""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api import FactBase, QuoteString, StringCommand
from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

from facts.files import FileStatus, parse_status
from facts.lines import STATUS, value, values, whole
from ppn.mesh.firewall import FILE, LISTING, TABLE

UNIT = "ppn-nftables.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
# Written after loading: the digest of the file, and of the table as nft listed it then.
LOADED = "/run/ppn/nft.loaded"

SCRIPT = rf"""set -eu
{STATUS}
for path in {FILE} {UNIT_FILE}; do status "file " "$path"; done
systemctl show --property=ActiveState,UnitFileState,NeedDaemonReload {UNIT}
if command -v nft > /dev/null && [ -e {LOADED} ]; then
  tables=$(nft list tables)
  if printf '%s\n' "$tables" | grep -qx 'table inet {TABLE}'; then
    listing=$({LISTING})
    now=$(printf '%s\n' "$listing" | sha256sum)
    {{ read -r file _; read -r table _; }} < {LOADED}
    if [ "$table" = "${{now%% *}}" ]; then echo "loaded $file"; fi
  fi
fi
echo end"""


@dataclass(frozen=True)
class FirewallState:
    """What a node has of ppn's firewall.

    Args:
        files: the ruleset's file and the unit's.
        loaded: SHA-256 of the file whose table is in force, unchanged; `None` when none is.
        enabled: whether it is loaded at boot.
        active: whether systemd has loaded it.
        needs_reload: whether systemd knows an older version of the unit.
    """

    files: dict[str, FileStatus | None]
    loaded: str | None
    enabled: bool
    active: bool
    needs_reload: bool


class Firewall(FactBase[FirewallState | None]):
    """The nftables table `inet ppn`: its file, and whether just that is in force.

    Returns:
        The state, or `None` when any part of it could not be read.

    Example:
        `host.get_fact(Firewall)`
    """

    @override
    @staticmethod
    def default() -> FirewallState | None:
        return None

    @override
    def command(self) -> StringCommand:
        return StringCommand("sh", "-c", QuoteString(SCRIPT))

    @override
    def process(self, output: list[str]) -> FirewallState | None:
        return parse(output)


def parse(output: list[str]) -> FirewallState:
    """The script's output as a state.

    Raises:
        FactProcessError: the output is cut off, or a line is not of the expected form.
    """
    properties = dict(
        line.split("=", 1) for line in whole(output, "firewall") if "=" in line.split(" ")[0]
    )
    try:
        return FirewallState(
            files=dict(map(parse_status, values(output, "file"))),
            loaded=value(output, "loaded"),
            enabled=properties["UnitFileState"] == "enabled",
            active=properties["ActiveState"] == "active",
            needs_reload=properties["NeedDaemonReload"] == "yes",
        )
    except KeyError as error:
        raise FactProcessError(f"systemctl did not print {error.args[0]} of {UNIT}") from error
