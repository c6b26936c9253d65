"""What is asked of libvirt; with `ppn.host.domain_facts` the only code that talks to it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, TypeVar
from xml.etree.ElementTree import fromstring

import libvirt

from ppn.errors import PpnError
from ppn.host.caller import Caller, NoAnswer
from ppn.host.devices import device_of, drives_of, files_of
from ppn.host.domain_facts import DomainFacts, all_domains, answering_domains

Result = TypeVar("Result")
Look = Callable[[libvirt.virConnect], tuple[DomainFacts, ...]]

DEFAULT_URI = "qemu:///system"
CALL_SECONDS = 120.0
# A look at all domains that takes longer waits for a QEMU, as a rule.
PATIENCE_SECONDS = 10.0
LATE = "libvirt_timeout"
POLL_SECONDS = 0.2
# QEMU takes an order to unplug a device again only after 5 s.
ASK_AGAIN_SECONDS = 6.0
UNDEFINE_ALL = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


class LibvirtFailed(PpnError):
    """libvirt refused or failed a call, or did not answer in time."""

    code = "libvirt_failed"


class DiskHeld(PpnError):
    """A guest that does not let go of a disk."""

    code = "disk_held"


class Backend:
    """A connection to libvirt, with a deadline on every call.

    Args:
        uri: libvirt's connection name; `PPN_LIBVIRT_URI` or the system's when None.
        deadline: seconds a single call may take.

    Raises:
        LibvirtFailed: no connection.
    """

    # Domains for which a look has waited in vain, by libvirt's connection name.
    _silent: ClassVar[dict[str, frozenset[str]]] = {}

    def __init__(self, uri: str | None = None, *, deadline: float = CALL_SECONDS) -> None:
        self._uri = uri or os.environ.get("PPN_LIBVIRT_URI", DEFAULT_URI)
        self._deadline = deadline
        # Without a handler of ours libvirt prints every error to standard error.
        libvirt.registerErrorHandler(_ignore, None)
        self._caller, self._connection = self._open()

    def _open(self) -> tuple[Caller, libvirt.virConnect]:
        try:
            caller = Caller(self._deadline, (libvirt.libvirtError, ValueError))
        except NoAnswer as late:
            raise self._late("connect", self._deadline) from late
        try:
            return caller, self._ask(caller, "connect", lambda: libvirt.open(self._uri))
        except LibvirtFailed:
            caller.end()
            raise

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; domains keep running."""
        try:
            if not self._caller.silent:
                self._call("disconnect", self._connection.close)
        finally:
            self._caller.end()

    def domains(self) -> tuple[DomainFacts, ...]:
        """Every domain, running or not, by name; little of one whose QEMU does not answer.

        libvirt waits for such a QEMU, and whoever asks waits with it. Who has waited once in vain
        asks anew for those that answer, and from then on for those alone, until all do.
        """
        known = self._silent.get(self._uri)
        if known is None:
            try:
                return self._list(all_domains, min(self._deadline, PATIENCE_SECONDS))
            except LibvirtFailed as error:
                if error.code != LATE:
                    raise
            # The connection is lost to the call that waits.
            held, (self._caller, self._connection) = self._caller, self._open()
            held.end()
        found = self._list(partial(answering_domains, known=known or frozenset()), self._deadline)
        if silent := frozenset(facts.name for facts in found if not facts.answers):
            self._silent[self._uri] = silent
        else:
            self._silent.pop(self._uri, None)
        return found

    def _list(self, look: Look, seconds: float) -> tuple[DomainFacts, ...]:
        return self._ask(self._caller, "list domains", partial(look, self._connection), seconds)

    def description(self, name: str) -> str:
        """A domain's XML as it is now, without secrets; empty when there is no such domain."""

        def describe() -> str:
            return str(self._connection.lookupByName(name).XMLDesc())

        return self._call(f"look at domain {name}", lambda: _if_there(describe, ""))

    def define(self, xml: str) -> None:
        """Make or replace a domain's lasting definition."""
        self._call("define a domain", lambda: self._connection.defineXML(xml))

    def start(self, name: str) -> None:
        """Start a defined domain; a domain that runs already is left alone."""
        domain = self._domain(name)

        def create() -> None:
            if not domain.isActive():
                domain.create()

        self._call(f"start domain {name}", create)

    def is_running(self, name: str) -> bool:
        """Whether the domain runs at this moment."""
        return bool(self._call(f"look at domain {name}", self._domain(name).isActive))

    def stop(self, name: str, *, grace: float) -> None:
        """Stop a domain: by its power button, and by force when it has not obeyed in time.

        Args:
            name: the domain.
            grace: seconds the guest has to power off; 0 for force at once.
        """
        domain = self._domain(name)
        end = time.monotonic() + grace
        if grace > 0:
            self._call(f"shut down domain {name}", lambda: _unless_stopped(domain.shutdown))
        while time.monotonic() < end:
            if not self.is_running(name):
                return
            time.sleep(POLL_SECONDS)
        self._call(f"stop domain {name}", lambda: _unless_stopped(domain.destroy))

    def undefine(self, name: str) -> None:
        """Remove a domain's definition; a domain that is gone already is left so."""

        def undefine() -> None:
            self._connection.lookupByName(name).undefineFlags(UNDEFINE_ALL)

        self._call(f"undefine domain {name}", lambda: _if_there(undefine, None))

    def discard(self, name: str) -> None:
        """Stop a domain by force and remove its definition; nothing when there is none."""
        if self.has(name):
            self.stop(name, grace=0)
            self.undefine(name)

    def has(self, name: str) -> bool:
        """Whether there is such a domain."""
        look = partial(self._connection.lookupByName, name)
        return self._call(f"look for domain {name}", lambda: _if_there(look, None)) is not None

    def disks(self, name: str) -> frozenset[str]:
        """Files of a domain's block devices; none when there is no such domain."""
        now = self.description(name)
        return files_of(fromstring(now)) if now else frozenset()

    def drives(self, name: str) -> frozenset[str]:
        """PCI addresses of the node's devices that a running domain has."""
        now = self.description(name)
        return drives_of(fromstring(now)) if now and self.is_running(name) else frozenset()

    def attach(self, name: str, xml: str) -> None:
        """Give a running domain a device, until it stops."""
        domain = self._domain(name)
        self._call(
            f"attach a device to domain {name}",
            lambda: domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE),
        )

    def targets(self, name: str) -> frozenset[str]:
        """libvirt's names for the places a running domain's disks take."""
        domain = self._domain(name)
        now = fromstring(self._call(f"look at domain {name}", domain.XMLDesc))
        return frozenset(place.get("dev", "") for place in now.iterfind("devices/disk/target"))

    def detach(self, name: str, behind: str, *, deadline: float) -> None:
        """Take a disk or drive from a running domain and wait until the guest let go (DISK-01).

        libvirt takes a device out of its description when QEMU says that it is gone.

        Args:
            name: the domain.
            behind: the disk's file, or the drive's PCI address.
            deadline: seconds the guest has to let go.

        Raises:
            DiskHeld: the guest did not.
        """
        domain = self._domain(name)

        def take() -> None:
            device = device_of(fromstring(domain.XMLDesc()), behind)
            if device is not None:
                domain.detachDeviceFlags(device, libvirt.VIR_DOMAIN_AFFECT_LIVE)

        begun = asked = time.monotonic()
        self._call(f"detach a device from domain {name}", take)
        while behind in self.disks(name) | self.drives(name):
            now = time.monotonic()
            if now - begun >= deadline:
                raise DiskHeld(
                    f"vm {name}: the guest has not let go of {behind} within {deadline:g} s",
                    hint="unmount the disk in the guest and run again, or stop the vm first",
                )
            if now - asked >= ASK_AGAIN_SECONDS:
                # A guest that is just booting may not have heard it.
                asked = now
                self._call(f"detach a device from domain {name}", take)
            time.sleep(POLL_SECONDS)

    def pin(self, name: str, cpus: Sequence[int]) -> None:
        """Let each vCPU of a running domain run on one CPU alone, now and at its next start.

        Args:
            name: the domain.
            cpus: one for each vCPU.
        """
        domain = self._domain(name)
        flags = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
        for vcpu, cpu in enumerate(cpus):
            allowed = tuple(other == cpu for other in range(max(cpus) + 1))
            self._call(
                f"pin vCPU {vcpu} of domain {name}",
                partial(domain.pinVcpuFlags, vcpu, allowed, flags),
            )

    def resize_disk(self, name: str, file: str, size_bytes: int) -> None:
        """Give a running domain's disk a new size; the guest sees it at once."""
        domain = self._domain(name)
        flag = libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
        self._call(
            f"resize a disk of domain {name}", lambda: domain.blockResize(file, size_bytes, flag)
        )

    def set_memory(self, name: str, mib: int) -> None:
        """Ask a running domain's balloon for a new size of the guest."""
        domain = self._domain(name)
        self._call(
            f"set the memory of domain {name}",
            lambda: domain.setMemoryFlags(mib * 1024, libvirt.VIR_DOMAIN_AFFECT_LIVE),
        )

    def set_weight(self, name: str, weight: int) -> None:
        """Set a running domain's CPU weight, now and for its next start (CPU-07)."""
        domain = self._domain(name)
        # libvirt's Python binding reads the parameters first, with the same flags, and a read takes
        # only one of them.
        for flag in (libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG):
            self._call(
                f"set the CPU weight of domain {name}",
                partial(domain.setSchedulerParametersFlags, {"cpu_shares": weight}, flag),
            )

    def _domain(self, name: str) -> libvirt.virDomain:
        return self._call(f"find domain {name}", lambda: self._connection.lookupByName(name))

    def _call(self, what: str, work: Callable[[], Result]) -> Result:
        return self._ask(self._caller, what, work)

    def _ask(
        self, caller: Caller, what: str, work: Callable[[], Result], seconds: float | None = None
    ) -> Result:
        """Do the work on the connection's own thread, so that a silent libvirt cannot hold us."""
        try:
            return caller.call(work, seconds)
        except NoAnswer as late:
            raise self._late(what, seconds or self._deadline) from late
        except (libvirt.libvirtError, ValueError) as error:
            raise _failed(f"cannot {what}: {_message(error)}", error) from error

    def _late(self, what: str, seconds: float) -> LibvirtFailed:
        return LibvirtFailed(
            f"cannot {what}: {self._uri} did not answer within {seconds:g} s",
            code=LATE,
            hint="look at the libvirt service's log on the node",
        )


def _ignore(_context: object, _error: object) -> None:
    """Errors are raised as well; nothing is to be printed."""


def _failed(message: str, error: Exception) -> LibvirtFailed:
    """A failed call: of libvirt's, or of the way to it."""
    if isinstance(error, libvirt.libvirtError) and error.get_error_domain() == libvirt.VIR_FROM_RPC:
        return LibvirtFailed(message, code="libvirt_unavailable", hint="start libvirt on the node")
    return LibvirtFailed(message)


def _message(error: Exception) -> str:
    if isinstance(error, libvirt.libvirtError):
        return error.get_error_message() or "no reason given"
    return str(error)


def _if_there(ask: Callable[[], Result], otherwise: Result) -> Result:
    """What libvirt says of a domain, or something else when there is no such domain."""
    try:
        return ask()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return otherwise


def _unless_stopped(order: Callable[[], int]) -> None:
    try:
        order()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise
