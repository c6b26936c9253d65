"""Who may have what: the pure rules."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.errors import Refusal
from ppn.host.spec import Disk
from ppn.tenant.model import DEFAULT_CEILING, NOTHING, Amount
from ppn.tenant.policy import (
    MOST,
    admit,
    amount_of,
    check_ceiling,
    check_tenant_name,
    check_vm_id,
    check_wanted,
)
from ppn.wire.fleet import VmOrder
from ppn.wire.problems import status_of
from tests.unit.tenant.samples import SMALL

FIGURES = [field.name for field in fields(Amount)]
amounts = st.builds(Amount, *(st.integers(0, MOST) for _ in FIGURES))


def refusal(code: str, *, constraint: str | None = None) -> pytest.RaisesExc[Refusal]:
    """Expect a refusal with a code."""
    return pytest.RaisesExc(
        Refusal,
        check=lambda found: found.code == code and constraint in (None, found.constraint),
    )


@pytest.mark.parametrize("figure", FIGURES)
def test_what_reaches_the_ceiling_passes_and_one_more_does_not(figure: str) -> None:
    """TEN-08: equal to the ceiling is accepted, one above it is refused with the numbers."""
    used = Amount(1000, 3, 40, 2)
    rest = DEFAULT_CEILING - used
    admit(DEFAULT_CEILING, used, rest)
    one_more = replace(rest, **{figure: getattr(rest, figure) + 1})
    with pytest.raises(Refusal) as caught:
        admit(DEFAULT_CEILING, used, one_more)
    assert caught.value.code == "quota_exceeded"
    assert status_of(caught.value) == 403
    assert (caught.value.wanted, caught.value.free) == (
        getattr(one_more, figure),
        getattr(rest, figure),
    )
    assert caught.value.unit


@given(ceiling=amounts, used=amounts, wanted=amounts)
def test_nothing_is_admitted_beyond_the_ceiling(
    ceiling: Amount, used: Amount, wanted: Amount
) -> None:
    """TEN-08: whatever grows ends within the ceiling; what fits is never refused."""
    try:
        admit(ceiling, used, wanted)
    except Refusal:
        assert not (used + wanted).fits(ceiling)
    else:
        grows = [name for name in FIGURES if getattr(wanted, name) > 0]
        assert all(getattr(used + wanted, name) <= getattr(ceiling, name) for name in grows)


def test_a_tenant_above_a_lowered_ceiling_may_shrink() -> None:
    admit(SMALL, SMALL + SMALL, NOTHING)
    admit(SMALL, SMALL + SMALL, NOTHING - SMALL)
    with refusal("quota_exceeded"):
        admit(SMALL, SMALL + SMALL, replace(NOTHING, vcpus=1))


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("value", [-1, 0, -(2**63), 2**63, MOST + 1, True, 1.5, "8", None])
def test_amounts_are_whole_numbers_within_bounds(figure: str, value: object) -> None:
    """TEN-08: negative, zero, 2^63 and what is no whole number are refused, as wish and ceiling."""
    wrong = replace(SMALL, **{figure: value})  # type: ignore[arg-type]
    with refusal("amount_invalid"):
        check_ceiling(wrong)
    with refusal("amount_invalid"):
        check_wanted(wrong)


def test_the_largest_amounts_are_accepted_and_one_vm_is_one() -> None:
    check_ceiling(Amount(MOST, MOST, MOST, MOST))
    check_wanted(Amount(1, 1, 1, 1))
    with refusal("amount_invalid"):
        check_wanted(Amount(1, 1, 1, 2))


@pytest.mark.parametrize("name", ["acme", "A", "a" * 64, "me@example.org", "a-b_c.d"])
def test_tenant_names_are_what_owners_of_vms_may_be(name: str) -> None:
    check_tenant_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 65,
        "-a",
        "a b",
        "a/b",
        "acme\n",
        "a\x00b",
        "a\x1b[31m",
        "ácme",
        "operator",
        "unknown",
        "a\u202e",
    ],
)
def test_other_tenant_names_are_refused(name: str) -> None:
    """TEN-03: nothing with control characters, and not the pool's own names."""
    with refusal("tenant_name_invalid"):
        check_tenant_name(name)


@pytest.mark.parametrize("vm", ["", "VM", "vm-a\n", "a" * 64, "../x"])
def test_ids_of_vms_are_checked(vm: str) -> None:
    check_vm_id("vm-odh2cxdxox2xydov")
    with refusal("vm_id_invalid"):
        check_vm_id(vm)


def test_all_disks_of_a_vm_count() -> None:
    """TEN-07: the quota is on capacity, with data disks at their full size."""
    order = VmOrder(
        owner="acme",
        image="debian-13",
        vcpus=2,
        memory_mib=512,
        disk_gib=3,
        disks=(Disk(name="a", size_gib=4), Disk(name="b", size_gib=5)),
    )
    assert amount_of(order) == Amount(memory_mib=512, vcpus=2, disk_gib=12, vms=1)


@given(left=amounts, right=amounts)
def test_amounts_add_up(left: Amount, right: Amount) -> None:
    assert (left + right) - right == left
    assert left.fits(left.most(right))
    assert right.fits(left.most(right))
    assert left.fits(left + right)
