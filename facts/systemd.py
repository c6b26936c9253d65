"""Facts about systemd units: many in one round trip."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from pyinfra.api import FactBase, QuoteString, StringCommand
from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

PROPERTIES = "Id,Names,LoadState,ActiveState,UnitFileState,NeedDaemonReload,ActiveEnterTimestamp"

# Blocks of `systemctl show`, then one line for each watched file: its mtime and its path.
SCRIPT = r"""set -eu
systemctl show --timestamp=us+utc --property="$1" -- $2
echo; echo ---
shift 2
for path in "$@"; do [ ! -e "$path" ] || stat -c '%.Y %n' -- "$path"; done"""


@dataclass(frozen=True)
class UnitStatus:
    """What systemd says of a unit; `entered` is when it last became active (seconds, Unix)."""

    names: frozenset[str]
    load: str
    active: str
    enabled: str
    needs_reload: bool
    entered: float | None


@dataclass(frozen=True)
class Units:
    """Units by any of their names, and the times watched files last changed (seconds, Unix)."""

    units: dict[str, UnitStatus]
    modified: dict[str, float]


class UnitStatuses(FactBase[Units | None]):
    """The state of units and the change times of the files they read at start.

    Args:
        units: unit names with their suffix.
        watched: absolute paths; a missing file is left out of the answer.

    Example:
        `host.get_fact(UnitStatuses, units=["ssh.service"], watched=["/etc/ssh/sshd_config"])`
    """

    @override
    @staticmethod
    def default() -> Units | None:
        return None

    @override
    def command(self, units: list[str], watched: list[str]) -> StringCommand:
        words = [PROPERTIES, " ".join(units), *watched]
        return StringCommand(
            "sh", "-c", QuoteString(SCRIPT), "ppn-units", *(QuoteString(w) for w in words)
        )

    @override
    def process(self, output: list[str]) -> Units | None:
        return parse(output)


def parse(output: list[str]) -> Units:
    """The script's output as units and change times.

    Raises:
        FactProcessError: the output has no separator or a block lacks a property.
    """
    if "---" not in output:
        raise FactProcessError("no separator in the output of the unit script")
    split = output.index("---")
    units: dict[str, UnitStatus] = {}
    for block in "\n".join(output[:split]).split("\n\n"):
        if block.strip():
            status = parse_unit(dict(line.partition("=")[::2] for line in block.splitlines()))
            units |= {name: status for name in status.names}
    modified = {}
    for line in output[split + 1 :]:
        moment, _, path = line.partition(" ")
        modified[path] = float(moment)
    return Units(units, modified)


def parse_unit(properties: dict[str, str]) -> UnitStatus:
    """One block of `systemctl show` as a status."""
    try:
        return UnitStatus(
            names=frozenset({properties["Id"], *properties["Names"].split()}),
            load=properties["LoadState"],
            active=properties["ActiveState"],
            enabled=properties["UnitFileState"],
            needs_reload=properties["NeedDaemonReload"] == "yes",
            entered=parse_time(properties["ActiveEnterTimestamp"]),
        )
    except KeyError as error:
        raise FactProcessError(f"systemctl show did not print {error.args[0]}") from error


def parse_time(text: str) -> float | None:
    """`Sat 2026-11-21 10:10:10.123456 UTC` as Unix seconds; empty or `n/a` as `None`."""
    if not text or text == "n/a":
        return None
    try:
        moment = datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S.%f UTC")
    except ValueError as error:
        raise FactProcessError(f"unexpected time from systemctl: {text!r}") from error
    return moment.replace(tzinfo=UTC).timestamp()
