"""From evidence to causes: each fault is named first, and nothing is wrong where nothing is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.diagnosis.catalogue import CATALOGUE, RANK
from ppn.diagnosis.causes import diagnose
from ppn.diagnosis.evidence import Evidence, Trouble
from ppn.errors import PpnError, Refusal
from ppn.wire.agent import Timeline
from ppn.wire.diagnosis import CertificateReport, Inspection, ServiceReport
from ppn.wire.fleet import PlacedVm
from ppn.wire.heartbeat import Alert
from ppn.wire.problems import NodeRefusal, ProblemBody
from tests.unit.diagnosis.samples import (
    EXAMINATION,
    MESH,
    PEER,
    WELL,
    agent_report,
    asked,
    decision,
    nowhere,
    record,
    refusal,
    spoilt,
)
from tests.unit.fleet.builders import report

TLS = "node server cannot be reached: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
NODE = Evidence("server", False, WELL.now, "1", examination=EXAMINATION, report=agent_report())


def alert(code: str, subject: str = "web") -> Evidence:
    """Evidence with an alert of the node."""
    found = Alert(code=code, subject=subject, message="it is so", hint="do that")
    return spoilt(report=agent_report(alerts=(found,)))


def failed(code: str, message: str) -> Evidence:
    """Evidence of an operation that failed."""
    last = record(outcome="failed", code=code, message=message)
    return spoilt(timeline=Timeline(vm="web", operations=(record(), last)), placed=None)


def problem(code: str, detail: str = "no") -> Evidence:
    """Evidence of an order that was not carried out."""
    body = ProblemBody(type="t", title="t", status=400, detail=detail, code=code)
    return spoilt(decision=decision(problem=body), timeline=None, placed=None)


def examined(**fields: object) -> Evidence:
    """Evidence of a node that is not as it should be."""
    return replace(NODE, examination=EXAMINATION.model_copy(update=fields))


def certificate(begins: str, ends: str) -> CertificateReport:
    return CertificateReport(file="node.crt", of="server", begins=begins, ends=ends)


CASES = {
    "image_missing": spoilt(decision=nowhere(refusal("image_unknown"))),
    "disk_full": spoilt(decision=nowhere(refusal("disk_exhausted"))),
    "disk_full (in the midst)": failed("file_failed", "write: No space left on device"),
    "disk_full (QEMU)": spoilt(
        inspection=Inspection(vm="web", qemu_log=("qemu: No space left on device",))
    ),
    "ports_empty": spoilt(decision=nowhere(refusal("ports_exhausted"))),
    "kvm_broken": failed("libvirt_failed", "cannot start: failed to initialize kvm: No such file"),
    "kvm_broken (emulated)": spoilt(
        placed=PlacedVm(node="server", vm=report("web", accelerator="tcg"))
    ),
    "agent_down": asked("agent_unavailable", "the agent does not answer: timed out"),
    "agent_down (unit)": examined(
        services=(ServiceReport(unit="ppn-agent.service", state="failed", result="exit-code"),)
    ),
    "proxy_certificate_ended": asked("node_unreachable", TLS + "certificate has expired"),
    "proxy_untrusted": asked("node_unreachable", TLS + "unable to get local issuer certificate"),
    "controller_certificate_ended": asked("certificate_ended", "the certificate has ended"),
    "clock_wrong": asked("node_unreachable", TLS + "certificate is not yet valid"),
    "clock_wrong (its own)": examined(at="2026-01-02T00:05:00+00:00"),
    "clock_wrong (certificate)": examined(
        certificates=(certificate("2026-01-03T00:00:00+00:00", "2027-01-01T00:00:00+00:00"),)
    ),
    "proxy_down": asked("node_unreachable", "node server cannot be reached: Connection refused"),
    "mesh_cut": asked("node_unreachable", "node server cannot be reached: ConnectTimeout"),
    "mesh_cut (on its way)": asked("outcome_unknown", "was asked and did not answer: ReadTimeout"),
    "mesh_down": examined(mesh=MESH.model_copy(update={"up": False})),
    "firewall_missing": examined(mesh=MESH.model_copy(update={"firewall": False})),
    "quota_exceeded": asked("quota_exceeded", "no", ""),
    "token_refused": asked("token_refused", "no", ""),
    "controller_down": asked("controller_unreachable", "no", ""),
    "controller_warming_up": asked("warming_up", "no", ""),
    "numa_rule": spoilt(decision=nowhere(refusal("vcpus_odd"), refusal("vcpus_exceed_socket"))),
    "user_data_wrong": problem("spec_invalid", "vm web: user_data: hostname: use the fields"),
    "order_wrong": problem("spec_invalid", "vm web: hostname: no host name"),
    "seed_damaged": spoilt(
        inspection=Inspection(vm="web", sidecar={"phase": "ready"}, seed="damaged", pid=1)
    ),
    "seed_refused": spoilt(console="[ 9.1] cloud-init: Failed loading yaml blob\n"),
    "guest_panic": spoilt(console="[ 1.0] Kernel panic - not syncing: VFS\n"),
    "libvirt_down": alert("libvirt_down", "libvirt"),
    "libvirt_down (asked)": failed("libvirt_unavailable", "cannot connect"),
    "ledger_tampered": alert("ledger_unusable", "ledger"),
    "qemu_silent": alert("qemu_silent"),
    "qemu_killed": alert("qemu_gone"),
    "domain_missing": alert("domain_missing"),
    "sidecar_damaged": alert("sidecar_damaged"),
    "agent_ended": failed("agent_ended", "the agent ended during define"),
    "hypervisor_failed": failed("libvirt_failed", ""),
    "node_silent": spoilt(decision=nowhere(refusal("node_stale"))),
    "memory_full": spoilt(decision=nowhere(refusal("memory_exhausted"))),
    "cpus_full": failed("vcpus_exhausted", "no CPUs"),
    "label_rule": spoilt(decision=nowhere(refusal("anti_affinity_unmet"))),
    "key_reused": problem("order_differs"),
    "outcome_open": problem("vm_undecided"),
    "service_down": examined(
        services=(ServiceReport(unit="ppn-vm-network.service", state="failed"),)
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_fault_is_named_first_with_a_next_step(name: str) -> None:
    """CLI-04."""
    first = diagnose(CASES[name])[0]
    assert (first.code, first.grade) == (name.split(" ")[0], "error")
    assert first.step and first.evidence and "{" not in first.title + first.step


def test_nothing_is_wrong_where_nothing_is() -> None:
    assert diagnose(WELL) == () and diagnose(NODE) == ()


@pytest.mark.parametrize(
    ("code", "evidence"),
    [
        ("kvm_missing", replace(NODE, report=agent_report(kvm={"usable": False, "reason": "no"}))),
        ("versions_differ", examined(versions={"ppn": "2"})),
        ("path_keeper_stopped", examined(mesh=MESH.model_copy(update={"keeper_seconds": None}))),
        (
            "peer_silent",
            examined(
                mesh=MESH.model_copy(
                    update={"peers": (PEER.model_copy(update={"handshake_seconds": 900.0}),)}
                )
            ),
        ),
        (
            "certificate_ends_soon",
            examined(
                certificates=(
                    certificate("2025-01-01T00:00:00+00:00", "2026-01-09T00:00:00+00:00"),
                )
            ),
        ),
    ],
)
def test_what_keeps_nothing_from_working_is_a_warning(code: str, evidence: Evidence) -> None:
    (only,) = diagnose(evidence)
    assert (only.code, only.grade) == (code, "warning")


def test_what_wireguard_does_not_say_is_no_fault() -> None:
    """CLI-04: neither a mesh that is down nor a silent peer, where nobody could look."""
    peers = (PEER.model_copy(update={"handshake_seconds": None}),)
    assert diagnose(examined(mesh=MESH.model_copy(update={"up": None, "peers": peers}))) == ()
    assert diagnose(examined(mesh=MESH.model_copy(update={"peers": peers}))) != ()


def test_a_node_that_was_refused_is_no_fault_of_a_vm_that_runs() -> None:
    assert diagnose(spoilt(decision=decision(refusal("image_unknown", "laptop")))) == ()


def test_an_old_failure_is_forgotten_once_it_went_well() -> None:
    bad = record(outcome="failed", code="libvirt_unavailable", message="down")
    assert diagnose(spoilt(timeline=Timeline(vm="web", operations=(bad, record())))) == ()


def test_the_alerts_of_other_vms_are_not_this_ones() -> None:
    assert diagnose(alert("qemu_gone", "other")) == ()
    assert diagnose(replace(alert("qemu_gone", "other"), vm=False, subject="server"))


def test_one_cause_on_many_nodes_is_one_with_a_line_for_each() -> None:
    """CLI-04: with the numbers of each node."""
    numbers = {"constraint": "memory", "wanted": 9, "free": 1, "unit": "MiB"}
    refused = [
        NodeRefusal(node=name, code="memory_exhausted", message="no", **numbers)  # type: ignore[arg-type]
        for name in ("laptop", "server")
    ]
    (only,) = diagnose(spoilt(decision=nowhere(*refused)))
    assert only.evidence == (
        "node laptop: no [wanted 9, free 1 MiB] (memory_exhausted)",
        "node server: no [wanted 9, free 1 MiB] (memory_exhausted)",
    )


def test_a_missing_vm_is_only_a_consequence_of_why_it_was_not_made() -> None:
    unknown = Trouble("the controller", Refusal("no vm", code="vm_unknown", constraint="c"))
    evidence = spoilt(decision=nowhere(refusal("image_unknown")), troubles=(unknown,), placed=None)
    assert [cause.code for cause in diagnose(evidence)] == ["image_missing"]
    alone = Evidence("web", True, 0.0, troubles=(unknown,))
    assert [cause.code for cause in diagnose(alone)] == ["vm_unknown"]


def test_a_full_quota_explains_a_vm_that_was_not_made() -> None:
    """CLI-04: and is no fault of one that is there."""
    unknown = Trouble("the tenant proxy", Refusal("no vm", code="vm_unknown", constraint="c"))
    quota = {"vms": (5, 5), "vcpus": (5, 8)}
    (only,) = diagnose(Evidence("web", True, 0.0, troubles=(unknown,), quota=quota))
    assert (only.code, only.evidence) == ("quota_exceeded", ("of vms 5 of 5 are taken",))
    assert diagnose(spoilt(quota=quota)) == ()


def test_what_has_no_name_is_told_in_its_own_words() -> None:
    (only,) = diagnose(failed("very_new", "the moon is in the way"))
    assert (only.code, only.title) == ("very_new", "the moon is in the way")
    (only,) = diagnose(failed("very_new", ""))
    assert only.title == "spawn at admit on server failed"


TEXTS = st.sampled_from([TLS + "certificate has expired", "timed out", "seed.iso", "{odd}", ""])
CODES = st.sampled_from(
    sorted({code for kind in CATALOGUE for code in kind.codes} | {"new", "not_chosen"})
)


@given(st.lists(st.tuples(CODES, TEXTS), max_size=6), st.lists(CODES, max_size=4), TEXTS)
def test_any_evidence_gets_an_ordered_answer(
    answers: list[tuple[str, str]], refused: list[str], console: str
) -> None:
    """Whatever comes together: never an exception, errors before warnings, basics first."""
    evidence = spoilt(
        troubles=tuple(Trouble("x", PpnError(text, code=code)) for code, text in answers),
        decision=nowhere(*(refusal(code, f"n{at}") for at, code in enumerate(refused))),
        console=console,
    )
    found = diagnose(evidence)
    ranks = [(cause.grade == "warning", RANK.get(cause.code, len(RANK))) for cause in found]
    assert ranks == sorted(ranks)
    assert len({cause.code for cause in found if cause.code in RANK}) == len(
        [cause for cause in found if cause.code in RANK]
    )
    if any(code != "not_chosen" for code in [*refused, *(code for code, _ in answers)]):
        assert found
