"""Carries out the steps of a plan, and takes back what it made when one of them fails."""

from __future__ import annotations

import os
import secrets
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ppn.durable import sync_folder
from ppn.errors import PpnError
from ppn.host.backend import Backend, LibvirtFailed
from ppn.host.bridge import isolate, network_change
from ppn.host.disk import create_disk, grow_disk
from ppn.host.domain import DomainInput, disk_xml, domain_xml, free_target
from ppn.host.images import GuestImage, read_image
from ppn.host.model import Accelerator, NodeState
from ppn.host.network import Interface, interface_of
from ppn.host.numa import choose_pins, guest_cells
from ppn.host.nvme import bind, give_back
from ppn.host.paths import Paths
from ppn.host.plan import Action, ActionKind
from ppn.host.sidecar import Sidecar, SidecarDamaged, read_sidecar, write_sidecar
from ppn.host.spec import VmSpec
from ppn.pool.policy import DEFAULT_WEIGHT

OnStep = Callable[[Action], None]
GRACE_SECONDS = 60.0
DETACH_SECONDS = 60.0
GIB = 1024 * 1024 * 1024


class NotRunning(PpnError):
    """A VM that was started and does not run."""

    code = "vm_not_running"


class Execution:
    """One change to one VM, by the only one who changes that VM now.

    Args:
        spec: the VM as it shall be.
        node: the node as it was when the change was admitted, with what others will take.
        paths: the node's files.
        backend: a connection to libvirt.
    """

    def __init__(self, spec: VmSpec, node: NodeState, paths: Paths, backend: Backend) -> None:
        self.spec = spec
        self.node = node
        self.paths = paths
        self.files = paths.vm(spec.name)
        self.backend = backend
        self.pins = choose_pins(spec, node)
        self.warnings: list[str] = []
        self._sidecar = self._known_sidecar()
        self._steps: dict[ActionKind, Callable[[Action], None]] = {
            ActionKind.RESERVE: self._reserve,
            ActionKind.LEASE: self._lease,
            ActionKind.CREATE_DISK: self._create_disk,
            ActionKind.GROW_DISK: self._grow_disk,
            ActionKind.WRITE_SEED: self._write_seed,
            ActionKind.DEFINE: self._define,
            ActionKind.ATTACH_DISK: self._attach_disk,
            ActionKind.DETACH_DISK: self._detach_disk,
            ActionKind.START: self._start,
            ActionKind.STOP: self._stop,
            ActionKind.UNDEFINE: self._undefine,
            ActionKind.REMOVE_FILES: self._remove_files,
            ActionKind.RECORD: self._record,
            ActionKind.DISCARD_DISK: self._remove_disk,
        }

    def run(self, actions: Sequence[Action], *, on_step: OnStep | None = None) -> None:
        """Carry out the steps in order; on failure a new VM leaves nothing behind (HOST-11).

        Args:
            actions: the steps of a plan.
            on_step: told of each step before it is taken.

        Raises:
            PpnError: the step that failed; what this run made has been taken back.
        """
        with ExitStack() as undo:
            for action in actions:
                if on_step is not None:
                    on_step(action)
                self._push_undo(undo, action)
                self._steps[action.kind](action)
            undo.pop_all()

    def _push_undo(self, undo: ExitStack, action: Action) -> None:
        if action.kind is ActionKind.RESERVE:
            undo.callback(self._discard)
        elif action.kind is ActionKind.CREATE_DISK:
            undo.callback(self._discard_disk, action.disk)

    def _discard(self) -> None:
        """Undo a whole creation; the files go last, for they say that there is something."""
        self.backend.discard(self.spec.name)
        remove_folder(self.paths, self.spec.name)

    def _discard_disk(self, name: str) -> None:
        path = self.files.disk(name)
        if str(path) not in self.backend.disks(self.spec.name):
            path.unlink(missing_ok=True)

    def _known_sidecar(self) -> Sidecar | None:
        try:
            return read_sidecar(self.files.sidecar)
        except SidecarDamaged:
            # Only a removal gets here, and it needs nothing from the sidecar.
            return None

    @property
    def _identity(self) -> Sidecar:
        if self._sidecar is None:
            raise PpnError(
                f"vm {self.spec.name} has no sidecar", code="sidecar_missing", hint="run again"
            )
        return self._sidecar

    def _image(self) -> GuestImage:
        return read_image(self.paths.image(self.spec.image))

    def _reserve(self, _: Action) -> None:
        self._sidecar = make_folder(
            self.paths,
            Sidecar(
                uuid=str(uuid.uuid4()),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                phase="creating",
                spec=self.spec,
                pins=self.pins,
                order=self.spec.digest(),
            ),
        )

    def _lease(self, _: Action) -> None:
        known = self._identity
        with network_change(self.paths) as change:
            lease = change.grant(self.spec, known.uuid, known.lease)
            self._sidecar = known.model_copy(update={"lease": lease})
            write_sidecar(self.files.sidecar, self._sidecar)

    def _create_disk(self, action: Action) -> None:
        base = self._image().base if action.disk == "root" else None
        create_disk(self.files.disk(action.disk), action.size_gib, base)

    def _grow_disk(self, action: Action) -> None:
        path = self.files.disk(action.disk)
        if str(path) in self.backend.disks(self.spec.name) and self._runs():
            self.backend.resize_disk(self.spec.name, str(path), action.size_gib * GIB)
        else:
            grow_disk(path, action.size_gib)

    def _runs(self) -> bool:
        return self.backend.is_running(self.spec.name)

    def _write_seed(self, _: Action) -> None:
        # Imported here: reading ISO code takes longer than most changes, which need no seed.
        from ppn.host.seed import network_config, write_seed

        lease, network, interface = self._identity.lease, self.node.network, self._interface
        config = None
        if lease is not None and network is not None and interface is not None:
            config = network_config(interface.mac, lease, network)
        write_seed(self.files.seed, self.spec, self._identity.uuid, config)

    @property
    def _interface(self) -> Interface | None:
        known = self._identity
        return interface_of(known.uuid) if known.lease is not None else None

    def _define(self, _: Action) -> None:
        self._hold_pins()
        if not self.node.kvm.usable:
            self._define_under("tcg")
            return
        try:
            self._define_under("kvm")
        except LibvirtFailed as error:
            self._fall_back(error)

    def _hold_pins(self) -> None:
        """The sidecar says which CPUs are held before anything runs on them."""
        if self._identity.pins != self.pins:
            self._sidecar = self._identity.model_copy(update={"pins": self.pins})
            write_sidecar(self.files.sidecar, self._sidecar)

    def _define_under(self, accelerator: Accelerator) -> None:
        grant = self.node.ledger.grant(self.spec.name)
        weight = grant.weight if grant is not None else DEFAULT_WEIGHT
        given = DomainInput(
            uuid=self._identity.uuid,
            paths=self.files,
            boot=self._image().boot,
            accelerator=accelerator,
            weight=weight if self.node.cpu_weight.enforced else None,
            pins=self.pins,
            interface=self._interface,
            drives=self._identity.drives,
            cells=guest_cells(self.pins, self.spec.memory_mib, self.node.topology),
        )
        self.backend.define(domain_xml(self.spec, given))

    def _attach_disk(self, action: Action) -> None:
        target = free_target(self.backend.targets(self.spec.name))
        self.backend.attach(self.spec.name, disk_xml(self.files, action.disk, target))

    def _detach_disk(self, action: Action) -> None:
        file = str(self.files.disk(action.disk))
        self.backend.detach(self.spec.name, file, deadline=DETACH_SECONDS)

    def _remove_disk(self, action: Action) -> None:
        self._discard_disk(action.disk)
        sync_folder(self.files.folder)

    def _start(self, _: Action) -> None:
        with network_change(self.paths) as change:
            change.restore()
        for drive in self._identity.drives:
            # After a boot the node's own driver has it.
            bind(self.paths.sysfs, drive, self.node.blocks)
        try:
            self._start_once()
        except (LibvirtFailed, NotRunning) as error:
            if not self.node.kvm.usable or self.warnings:
                raise
            self._fall_back(error)
            self._start_once()

    def _fall_back(self, error: PpnError) -> None:
        """KVM can fail for one VM where it served the probe: emulation is slower, not absent."""
        self.warnings.append(f"vm {self.spec.name} does not run under KVM: {error.message}")
        self._define_under("tcg")

    def _start_once(self) -> None:
        self.backend.start(self.spec.name)
        if not self.backend.is_running(self.spec.name):
            raise NotRunning(
                f"vm {self.spec.name} was started and stopped at once",
                hint=f"look at {self.files.serial_log} and libvirt's log of the domain",
            )
        if self._interface is not None:
            isolate(self._interface.tap)

    def _stop(self, _: Action) -> None:
        self.backend.stop(self.spec.name, grace=0 if self.spec.state == "absent" else GRACE_SECONDS)

    def _undefine(self, _: Action) -> None:
        self.backend.undefine(self.spec.name)

    def _remove_files(self, _: Action) -> None:
        for drive in self._sidecar.drives if self._sidecar is not None else ():
            give_back(self.paths.sysfs, drive)
        remove_folder(self.paths, self.spec.name)

    def _record(self, _: Action) -> None:
        known = self._identity
        self._sidecar = known.model_copy(update={"phase": "ready", "spec": self.spec})
        write_sidecar(self.files.sidecar, self._sidecar)


def make_folder(paths: Paths, sidecar: Sidecar) -> Sidecar:
    """Make a VM's folder: it appears with its sidecar in it, so that what is there is known.

    Args:
        paths: the node's files.
        sidecar: of the VM, which has no address yet.

    Returns:
        The sidecar with the VM's address and ports.

    Raises:
        Refusal: an address or a port that cannot be had.
        OSError: the folder cannot be made.
    """
    name = sidecar.spec.name
    paths.vms.mkdir(mode=0o711, parents=True, exist_ok=True)
    making = paths.vms / f".{name}.new"
    making.mkdir(mode=0o711)
    with network_change(paths) as change:
        lease = change.grant(sidecar.spec, sidecar.uuid, None)
        made = sidecar.model_copy(update={"lease": lease})
        write_sidecar(making / paths.vm(name).sidecar.name, made)
        os.rename(making, paths.vm(name).folder)
        sync_folder(paths.vms)
    return made


def remove_folder(paths: Paths, name: str) -> None:
    """Remove a VM's folder: it leaves its name in one step, so that no part of a VM is seen.

    Args:
        paths: the node's files.
        name: the VM.

    Raises:
        OSError: it cannot be removed.
    """
    gone = paths.vms / f".{name}.{secrets.token_hex(6)}.gone"
    if paths.vm(name).folder.exists():
        with network_change(paths) as change:
            change.withdraw(name)
            os.rename(paths.vm(name).folder, gone)
            sync_folder(paths.vms)
    sweep_vm(paths, name)


def sweep(paths: Paths) -> None:
    """Remove what killed runs left half made or half removed; only while nothing is changed."""
    _remove(paths.vms, (".*.new", ".*.gone", "*/.*.new"))


def sweep_vm(paths: Paths, name: str) -> None:
    """Remove what an earlier change of one VM left; only by who changes that VM now."""
    _remove(paths.vms, (f".{name}.new", f".{name}.*.gone", f"{name}/.*.new"))


def _remove(vms: Path, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        # Anew for each: a folder that is gone has taken what was half made in it along.
        for leftover in list(vms.glob(pattern)):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


@contextmanager
def as_errors(what: str) -> Iterator[None]:
    """Turn the system's file errors into ppn's, naming what was being done."""
    try:
        yield
    except OSError as error:
        raise PpnError(
            f"cannot {what}: {error.filename or ''}: {error.strerror}",
            code="file_failed",
            hint="check room and permissions on the node",
        ) from error
