"""Operations on systemd units.

pyinfra's own restart or reload every time they are asked to. These compare first, and decide a
restart by what is true of the node (a file newer than the running unit), so that a run cut off
between writing a file and restarting is made good by the next.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from pyinfra import host
from pyinfra.api import FunctionCommand, QuoteString, StringCommand, operation

from facts.files import Statuses
from facts.systemd import Units, UnitStatuses
from operations.failure import unreadable
from operations.files import File
from operations.files import plan as differing_files


@dataclass(frozen=True)
class Unit:
    """A unit as it should be.

    Args:
        name: with its suffix, for example `ppn-path-keeper.service`.
        enabled: started at boot; None leaves it as it is.
        running: active now; None leaves it as it is, for a service that a timer starts.
        restart_after: absolute paths; a change of one later than the unit's start restarts it.
    """

    name: str
    enabled: bool | None = True
    running: bool | None = True
    restart_after: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Where an operator's unit file of this name lies."""
        return f"/etc/systemd/system/{self.name}"

    def is_described_in(self, path: str) -> bool:
        """Whether systemd reads the unit in a file, in its own or in a piece put beside it."""
        return path == self.path or path.startswith(f"{self.path}.d/")


# Units are enabled behind systemd's back, for it would want to be reloaded for each, which takes a
# slow node many seconds. It has to be when it knows one of them otherwise than it now is on disk.
SETTLE = r"""told=$(systemctl show --property=UnitFileState,NeedDaemonReload -- "$@") || exit
on_disk=$(systemctl --root=/ is-enabled -- "$@")
known=$(echo "$told" | sed -n 's/^UnitFileState=//p')
case $told in *NeedDaemonReload=yes*) known=stale ;; esac
[ "$known" = "$on_disk" ] || systemctl daemon-reload"""

ENABLED = {"enabled", "enabled-runtime", "static", "alias", "indirect", "generated", "linked"}
ACTIVE = {"active", "reloading", "activating"}


def plan(
    wanted: tuple[Unit, ...], actual: Units, differing: frozenset[str]
) -> tuple[tuple[str, ...], ...]:
    """The systemctl calls that make the units as wanted.

    Args:
        wanted: the units as declared.
        actual: what systemd says of them.
        differing: paths an earlier step of this run is about to replace.

    Returns:
        Verbs with their units, in order, for `command`.
    """
    calls: list[tuple[str, ...]] = []
    reload = False
    for unit in wanted:
        status = actual.units.get(unit.name)
        reload = reload or (status is not None and status.needs_reload)
        reload = reload or any(map(unit.is_described_in, differing))
        enabled = status is not None and status.enabled in ENABLED
        if unit.enabled not in (None, enabled):
            calls.append(("enable" if unit.enabled else "disable", unit.name))
    if reload or calls:
        calls.append(("settle", *(unit.name for unit in wanted)))
    for unit in wanted:
        status = actual.units.get(unit.name)
        active = status is not None and status.active in ACTIVE
        if unit.running and not active:
            calls.append(("start", unit.name))
        elif unit.running and is_outdated(unit, actual, differing):
            calls.append(("restart", unit.name))
        elif unit.running is False and active:
            calls.append(("stop", unit.name))
    return tuple(calls)


def is_outdated(unit: Unit, actual: Units, differing: frozenset[str]) -> bool:
    """Whether a file the unit reads at start has changed since it started, or is about to."""
    watched = {unit.path, *unit.restart_after}
    entered = actual.units[unit.name].entered
    newer = entered is not None and any(actual.modified.get(path, 0) > entered for path in watched)
    return newer or bool(watched & differing)


def command(verb: str, *units: str) -> StringCommand:
    """What does something with units on a node.

    Args:
        verb: of systemctl, or `settle`: make systemd know units as they are on the disk.
        units: their names.
    """
    names = [QuoteString(unit) for unit in units]
    if verb == "settle":
        return StringCommand("sh", "-c", QuoteString(SETTLE), "ppn-settle", *names)
    if verb in ("enable", "disable"):
        # Debian's tool for links of init scripts, which nothing reads, reloads systemd as well.
        no_links = ("env", "SYSTEMCTL_SKIP_SYSV=1")
        return StringCommand(*no_links, "systemctl", "--root=/", "--quiet", verb, *names)
    return StringCommand("systemctl", verb, *names)


@operation()
def units(
    units: tuple[Unit, ...], files: dict[str, File] | None = None
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Declare which units are enabled and running; restart those whose files changed.

    + units: what each unit should be; its own file in /etc/systemd/system is always watched. What
      lies in the folder beside it is made known to systemd and holds from the next start on.
    + files: what an earlier step of the same run declares, so that a dry run announces the
      restart that a changed file will bring.

    **Example:**

    .. code:: python

        systemd.units(
            name="SSH runs",
            units=(Unit("ssh.service", restart_after=("/etc/ssh/sshd_config",)),),
        )
    """
    declared = files or {}
    watched = sorted({path for unit in units for path in (unit.path, *unit.restart_after)})
    actual = host.get_fact(UnitStatuses, units=[unit.name for unit in units], watched=watched)
    statuses = host.get_fact(Statuses, paths=list(declared)) if declared else {}
    if actual is None or statuses is None:
        yield unreadable(f"the state of {', '.join(unit.name for unit in units)}")
        return
    calls = plan(units, actual, frozenset(differing_files(declared, statuses)))
    if not calls:
        host.noop(f"{len(units)} units are as declared")
        return
    for call in calls:
        yield command(*call)
