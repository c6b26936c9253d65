"""Large VMs between their start and the moment their memory is steady (DISK-03)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from ppn.errors import PpnError, Refusal
from ppn.host.backend import Backend
from ppn.host.domain_facts import DomainFacts
from ppn.host.settle import Clock, settle
from ppn.log import get_logger

log = get_logger("host-agent")


class Guests(Protocol):
    """Whoever knows a node's domains."""

    def domains(self) -> Iterable[DomainFacts]:
        """Every domain, running or not."""


class Settling:
    """The VMs whose memory still moves; they run, and are told to be stabilising.

    Args:
        on_change: told when one has settled; on any thread.
        uri: libvirt's connection name; the environment's or the system's when None.
    """

    def __init__(self, on_change: Callable[[], None], uri: str | None = None) -> None:
        self._on_change = on_change
        self._uri = uri
        self._lock = threading.Lock()
        self._vms: dict[str, int] = {}

    def begin(self, vm: str) -> None:
        """Watch a VM that has just been started, on a thread of its own, until it is steady."""
        self.add(vm)
        threading.Thread(target=self._watch, args=(vm,), daemon=True, name=f"settle-{vm}").start()

    def add(self, vm: str) -> None:
        """Tell of a VM that it is stabilising, until `remove`."""
        with self._lock:
            self._vms[vm] = self._vms.get(vm, 0) + 1
        self._on_change()

    def remove(self, vm: str) -> None:
        """End what `add` began."""
        with self._lock:
            self._vms[vm] -= 1
            if not self._vms[vm]:
                del self._vms[vm]
        self._on_change()

    def vms(self) -> frozenset[str]:
        """Those that are not steady yet."""
        with self._lock:
            return frozenset(self._vms)

    def _watch(self, vm: str) -> None:
        try:
            with Backend(self._uri) as backend:
                settle(lambda: memory_mib(backend, vm), Clock(time.monotonic, time.sleep))
        except PpnError as error:
            # It runs all the same, or is gone: either is told by the next look.
            log.warning("vm not settled", vm=vm, code=error.code, error=str(error))
        finally:
            self.remove(vm)


def memory_mib(backend: Guests, vm: str) -> int:
    """The memory in MiB that a running VM has at this moment.

    Raises:
        Refusal: it does not run.
    """
    for facts in backend.domains():
        if facts.name == vm and facts.current_mib is not None:
            return facts.current_mib
    raise Refusal(
        f"vm {vm} runs no more", code="vm_not_running", constraint="running VM", hint="start it"
    )
