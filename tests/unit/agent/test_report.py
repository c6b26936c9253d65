"""What a heartbeat says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ppn.host.agent.heartbeat import backoff
from ppn.host.agent.report import heartbeat, vm_report
from ppn.host.lease import Lease, OpenPort
from ppn.host.model import (
    BlockDevice,
    BlockPart,
    CpuUsage,
    Kvm,
    NodeState,
    Settings,
    Socket,
    Topology,
)
from ppn.host.spec import VmSpec
from ppn.wire.heartbeat import Alert, Heartbeat, Port, VmNetwork
from tests.unit.host.builders import UUID, make_node, make_spec, make_view
from tests.unit.host.test_network import make_network


def told(node: NodeState, *in_flight: VmSpec) -> Heartbeat:
    """A heartbeat as a controller reads it."""
    alert = Alert(code="qemu_gone", subject="web", message="gone")
    sent = heartbeat(
        node,
        name="server",
        session="a" * 32,
        sequence=3,
        in_flight=in_flight,
        alerts=(alert,),
    )
    return Heartbeat.model_validate_json(sent.model_dump_json())


def test_node_and_vms_as_they_are() -> None:
    """HOST-06, HOST-08, HOST-09, HLT-03: identity, reservation, KVM with its reason, every VM."""
    spec = make_spec(owner="tenant-1", label="x", disks=[{"name": "data", "size_gib": 2}])
    view = make_view(spec, owner="tenant-1", created="2026-01-01T00:00:00+00:00", cpu_seconds=1.5)
    settings = Settings(reserved=True, allow_odd_vcpus=True)
    kvm = Kvm(usable=False, reason="/dev/kvm does not exist", probed=True)
    found = told(make_node(view, settings=settings, kvm=kvm))
    assert (found.node, found.session, found.sequence) == ("server", "a" * 32, 3)
    assert found.reserved and found.allow_odd_vcpus and found.kvm == kvm
    assert [alert.code for alert in found.alerts] == ["qemu_gone"]
    (vm,) = found.vms
    assert (vm.id, vm.owner, vm.state, vm.uuid, vm.label) == (
        "web",
        "tenant-1",
        "running",
        UUID,
        "x",
    )
    assert (vm.created, vm.cpu_seconds, vm.disks) == (view.created, 1.5, spec.disks)


def test_hardware_and_its_use_are_told() -> None:
    """HLT-02, HLT-04: all but which CPUs share a core."""
    usage = CpuUsage(busy_seconds=1.5, idle_seconds=8.5, load=0.25)
    root = BlockPart(name="vda1", size_mib=1000, used_by=("/",))
    drive = BlockDevice(name="vda", size_mib=1024, model="QEMU", parts=(root,))
    topology = Topology(
        cpus=4,
        sockets=(Socket(id=0, cpus=(0, 1, 2, 3), cores=2, threads=((0, 2), (1, 3))),),
        memory_mib=8192,
        cpu_model="AMD EPYC",
    )
    found = told(make_node(topology=topology, cpu_usage=usage, blocks=(drive,)))
    assert (found.cpu_usage, found.blocks) == (usage, (drive,))
    (socket,) = found.topology.sockets
    assert (socket.cores, socket.cpus, socket.threads) == (2, (0, 1, 2, 3), ())
    assert found.topology.cpu_model == "AMD EPYC"


def test_address_and_ports_are_the_leases() -> None:
    """HOST-06, IP-01: with the range and the ports a controller may choose from."""
    lease = Lease(address="10.9.2.5", ports=(OpenPort(guest=80, host=30004),))
    view = make_view(make_spec(ports=[{"guest": 80}]), lease=lease)
    found = told(make_node(view, network=make_network()), make_spec(name="x", address="10.9.2.6"))
    assert found.network == VmNetwork(range="10.9.2.0/28", first_port=30000, last_port=30007)
    assert [vm.address for vm in found.vms] == ["10.9.2.5", "10.9.2.6"]
    assert found.vms[0].ports == (Port(guest=80, host=30004),)
    assert told(make_node()).network is None


def test_what_is_in_flight_is_counted_and_listed() -> None:
    """HLT-05, HOST-17: the allocation changes before anything is on the node."""
    node = make_node()
    spec = make_spec(owner="tenant-1", vcpus=4, memory_mib=1024)
    found = told(node, spec)
    assert found.pool.vcpus_allocated == 4
    assert found.pool.available_mib == node.pool.available_mib - 1024
    assert [(vm.id, vm.owner, vm.state) for vm in found.vms] == [("web", "tenant-1", "creating")]
    made = make_view(spec, phase="creating", owner="tenant-1")
    again = told(make_node(made), spec)
    assert [(vm.id, vm.state) for vm in again.vms] == [("web", "creating")]
    assert again.pool.vcpus_allocated == 4
    assert told(node, spec.model_copy(update={"state": "absent"})).vms == ()


def test_vm_that_nobody_can_tell_the_owner_of() -> None:
    lost = make_view(make_spec()).model_copy(update={"spec": None, "sidecar": "missing"})
    report = vm_report(lost)
    assert (report.owner, report.vcpus, report.memory_mib) == ("unknown", 0, 512)


@given(st.integers(1, 10_000), st.floats(0.1, 60), st.floats(0, 1))
def test_backoff_never_exceeds_the_interval(failures: int, interval: float, chance: float) -> None:
    wait = backoff(failures, interval, chance)
    assert 0 < wait <= interval
    assert backoff(failures + 1, interval, chance) >= wait
