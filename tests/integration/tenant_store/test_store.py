"""The tenant store on its real databases: tenants, tokens, allocations."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from ppn.errors import Refusal
from ppn.tenant import database
from ppn.tenant.model import DEFAULT_CEILING, NOTHING, Amount, Tenant
from ppn.tenant.policy import MOST
from ppn.tenant.store import Store
from ppn.tenant.tokens import new_text
from ppn.wire.problems import problem_of
from tests.unit.tenant.samples import LARGE, LATER, LEASE_SECONDS, NOW, ROOM_FOR_5, SMALL

DAY = timedelta(days=1)


def refusal(code: str) -> pytest.RaisesExc[Refusal]:
    """Expect a refusal with a code."""
    return pytest.RaisesExc(Refusal, check=lambda found: found.code == code)


def settled(store: Store, vm: str = "vm-a", amount: Amount = SMALL) -> None:
    """Have a VM of acme's."""
    store.reserve("acme", vm, amount, lease_seconds=LEASE_SECONDS, now=NOW)
    store.settle(vm, now=NOW)


@pytest.fixture
def acme(store: Store) -> Tenant:
    """A tenant with room for five small VMs."""
    return store.create_tenant("acme", ROOM_FOR_5, now=NOW)


def test_a_tenant_is_its_name_and_its_ceiling(store: Store) -> None:
    """TEN-07: provisioned with a ceiling; status shows what is used of it."""
    made = store.create_tenant("acme", DEFAULT_CEILING, now=NOW)
    assert made == Tenant("acme", DEFAULT_CEILING, NOTHING, NOW)
    assert store.tenant("acme") == made
    with refusal("tenant_exists"):
        store.create_tenant("acme", DEFAULT_CEILING, now=NOW)
    store.create_tenant("Acme", DEFAULT_CEILING, now=NOW)
    assert [tenant.name for tenant in store.tenants()] == ["Acme", "acme"]
    with refusal("tenant_unknown"):
        store.tenant("globex")


@pytest.mark.parametrize("value", [-1, 0, 2**63])
def test_no_tenant_without_a_sensible_ceiling(store: Store, value: int) -> None:
    """TEN-07, TEN-08: and nothing is left of one that was refused."""
    with refusal("amount_invalid"):
        store.create_tenant("acme", replace(DEFAULT_CEILING, vcpus=value), now=NOW)
    with refusal("tenant_name_invalid"):
        store.create_tenant("ac\nme", DEFAULT_CEILING, now=NOW)
    assert store.tenants() == ()


def test_the_largest_ceiling_can_be_kept_and_used_up(store: Store) -> None:
    most = Amount(MOST, MOST, MOST, MOST)
    store.create_tenant("acme", most, now=NOW)
    settled(store, amount=Amount(MOST, MOST, MOST, 1))
    assert store.tenant("acme").free == Amount(0, 0, 0, MOST - 1)


def test_a_ceiling_can_be_raised_and_lowered_below_what_is_used(store: Store, acme: Tenant) -> None:
    """TEN-07: nothing more is admitted then, and what is there stays and may be removed."""
    settled(store)
    settled(store, "vm-b")
    assert store.set_ceiling("acme", asdict(SMALL)).free == NOTHING - SMALL
    with refusal("quota_exceeded"):
        store.reserve("acme", "vm-c", SMALL, lease_seconds=1, now=NOW)
    begun = store.begin_removal("vm-a", lease_seconds=1, now=LATER)
    store.end_removal(begun, gone=True, now=LATER)
    assert store.tenant("acme").used == SMALL
    assert store.set_ceiling("acme", asdict(acme.ceiling)).ceiling == acme.ceiling
    with refusal("tenant_unknown"):
        store.set_ceiling("globex", asdict(SMALL))


def test_two_who_set_two_figures_of_a_ceiling_set_both(
    store: Store, acme: Tenant, url: str
) -> None:
    """TEN-07: neither puts back what the other has just changed."""
    with Store.open(url) as other:
        assert other.set_ceiling("acme", {"vms": 9}).ceiling == replace(acme.ceiling, vms=9)
        both = store.set_ceiling("acme", {"vcpus": 64}).ceiling
    assert both == replace(acme.ceiling, vms=9, vcpus=64)
    with refusal("amount_invalid"):
        store.set_ceiling("acme", {"vms": 0})
    assert store.tenant("acme").ceiling == both


def test_a_tenant_is_removed_once_it_has_no_vms(store: Store, acme: Tenant) -> None:
    store.issue_token("acme", now=NOW)
    store.reserve("acme", "vm-a", SMALL, lease_seconds=1, now=NOW)
    with refusal("tenant_has_vms"):
        store.remove_tenant("acme")
    store.release("vm-a")
    store.remove_tenant("acme")
    assert (store.tenants(), store.tokens()) == ((), ())
    with refusal("tenant_unknown"):
        store.remove_tenant("acme")


def test_a_token_speaks_for_its_tenant(store: Store, acme: Tenant) -> None:
    """TEN-03, TEN-04: the tenant comes from the token; an operator's token names none."""
    issued = store.issue_token("acme", now=NOW)
    found = store.authenticate(issued.text, now=LATER)
    assert (found, found.tenant, found.scope) == (issued.token, "acme", "tenant")
    operator = store.authenticate(store.issue_token(None, now=NOW).text, now=LATER)
    assert (operator.tenant, operator.scope) == (None, "operator")
    assert len(store.tokens()) == 2
    assert store.tokens("acme") == (issued.token,)
    with refusal("tenant_unknown"):
        store.issue_token("globex", now=NOW)


def test_the_store_holds_only_a_hash(store: Store, acme: Tenant, url: str) -> None:
    """TEN-03: whoever reads the whole database has no token."""
    secret = store.issue_token("acme", now=NOW).text.split("_", 2)[2]
    engine = database.open_engine(database.parse_url(url))
    with database.transaction(engine, read_only=True) as connection:
        rows = connection.execute(text("SELECT * FROM tokens")).all()
    engine.dispose()
    assert len(rows) == 1
    assert secret not in str(rows)


def test_no_token_is_good_after_it_was_revoked_or_ended(store: Store, acme: Tenant) -> None:
    """TEN-03: revoked, expired, unknown and malformed ones get the same refusal."""
    revoked = store.issue_token("acme", now=NOW)
    assert store.revoke_token(revoked.token.id, now=LATER).revoked == LATER
    assert store.revoke_token(revoked.token.id, now=LATER + DAY).revoked == LATER
    ended = store.issue_token("acme", now=NOW, expires=NOW + DAY)
    assert store.authenticate(ended.text, now=NOW + DAY - timedelta.resolution) == ended.token
    bodies = set()
    unknown = new_text("0" * 16)
    for words in (revoked.text, ended.text, unknown, new_text(ended.token.id), "", "ppn_x", "\0"):
        with refusal("token_refused") as caught:
            store.authenticate(words, now=NOW + DAY)
        bodies.add(problem_of(caught.value).model_dump_json())
    assert len(bodies) == 1
    with refusal("token_unknown"):
        store.revoke_token("0" * 16, now=NOW)
    with refusal("expiry_past"):
        store.issue_token("acme", now=NOW, expires=NOW)


def test_what_is_asked_for_is_taken_until_the_ceiling(store: Store, acme: Tenant) -> None:
    """TEN-08: equal to the ceiling passes, one MiB more does not; reserved counts as settled."""
    for number in range(4):
        settled(store, f"vm-{number}")
    over = replace(SMALL, memory_mib=SMALL.memory_mib + 1)
    with refusal("quota_exceeded") as caught:
        store.reserve("acme", "vm-4", over, lease_seconds=1, now=NOW)
    assert (caught.value.wanted, caught.value.free, caught.value.unit) == (1025, 1024, "MiB")
    assert store.allocations() == tuple(store.allocation("acme", f"vm-{n}") for n in range(4))
    store.reserve("acme", "vm-4", SMALL, lease_seconds=1, now=NOW)
    assert store.tenant("acme").free == NOTHING
    with refusal("quota_exceeded"):
        store.reserve("acme", "vm-5", Amount(1, 1, 1, 1), lease_seconds=1, now=NOW)


@pytest.mark.parametrize("value", [-1, 0, 2**63])
def test_senseless_amounts_are_never_taken(store: Store, acme: Tenant, value: int) -> None:
    """TEN-08: negative, zero and 2^63 are refused for orders and changes alike."""
    settled(store)
    for figure in ("memory_mib", "vcpus", "disk_gib", "vms"):
        wrong = replace(SMALL, **{figure: value})
        with refusal("amount_invalid"):
            store.reserve("acme", "vm-b", wrong, lease_seconds=1, now=NOW)
        with refusal("amount_invalid"):
            store.begin_change("vm-a", wrong, lease_seconds=1, now=NOW)
    assert store.tenant("acme").used == SMALL


def test_foreign_unknown_and_removed_vms_are_all_unknown(store: Store, acme: Tenant) -> None:
    """TEN-05: the same words for each, so that nobody learns what others have."""
    store.create_tenant("globex", ROOM_FOR_5, now=NOW)
    settled(store)
    settled(store, "vm-b")
    store.end_removal(store.begin_removal("vm-b", lease_seconds=1, now=LATER), gone=True, now=LATER)
    said = set()
    for tenant, vm in (("globex", "vm-a"), ("acme", "vm-b"), ("acme", "vm-x"), (None, "vm-b")):
        with refusal("vm_unknown") as caught:
            store.allocation(tenant, vm)
        said.add(str(caught.value).replace(vm, "VM"))
    assert len(said) == 1
    with refusal("vm_unknown"):
        store.reserve("globex", "vm-a", SMALL, lease_seconds=1, now=NOW)
    assert store.allocation(None, "vm-a").tenant == "acme"
    assert [one.vm for one in store.allocations("acme")] == ["vm-a"]
    assert store.allocations("globex") == ()


def test_a_change_is_counted_from_before_it_is_asked_for(store: Store, acme: Tenant) -> None:
    """TEN-08: growing past the ceiling is refused; shrinking frees only once it is done."""
    settled(store)
    begun = store.begin_change("vm-a", LARGE, lease_seconds=LEASE_SECONDS, now=NOW)
    assert store.tenant("acme").used == LARGE
    with refusal("vm_busy"):
        store.begin_change("vm-a", SMALL, lease_seconds=1, now=NOW)
    store.end_change(begun, LARGE, now=NOW)
    shrinking = store.begin_change("vm-a", SMALL, lease_seconds=LEASE_SECONDS, now=NOW)
    assert store.tenant("acme").used == LARGE
    store.end_change(begun, SMALL, now=NOW)  # an earlier one's end says nothing of this one
    assert store.tenant("acme").used == LARGE
    store.end_change(shrinking, SMALL, now=NOW)
    assert store.tenant("acme").used == SMALL
    with refusal("quota_exceeded"):
        store.begin_change("vm-a", replace(SMALL, vcpus=11), lease_seconds=1, now=NOW)
    with refusal("vm_unknown"):
        store.begin_change("vm-x", SMALL, lease_seconds=1, now=NOW)


def test_what_was_made_too_late_is_not_quietly_counted(store: Store, acme: Tenant) -> None:
    """TEN-08: a request that outlived its lease learns that its VM must go."""
    seen = store.reserve("acme", "vm-a", SMALL, lease_seconds=LEASE_SECONDS, now=NOW)
    again = store.reserve("acme", "vm-a", SMALL, lease_seconds=LEASE_SECONDS, now=NOW)
    assert not store.replace(seen, None)
    assert store.replace(again, None)
    assert store.tenant("acme").used == NOTHING
    with refusal("allocation_gone"):
        store.settle("vm-a", now=LATER)
    store.release("vm-a")
    assert not store.replace(again, None)


def test_what_the_sweeper_saw_is_judged_by_all_of_it(store: Store, acme: Tenant) -> None:
    """TEN-08: removed and ordered again meanwhile, the VM that was seen is another."""
    seen = store.reserve("acme", "vm-a", SMALL, lease_seconds=LEASE_SECONDS, now=NOW)
    store.release("vm-a")
    store.reserve("acme", "vm-a", SMALL, lease_seconds=LEASE_SECONDS, now=NOW)
    assert not store.replace(seen, replace(seen, state="settled", holders=0))
    assert store.allocation("acme", "vm-a").state == "reserved"


def test_the_sweeper_is_given_what_is_open_and_nobody_is_at(store: Store, acme: Tenant) -> None:
    settled(store, "vm-done")
    for vm in ("vm-changing", "vm-removing", "vm-late"):
        settled(store, vm)
    store.begin_change("vm-changing", SMALL, lease_seconds=1, now=NOW)
    store.begin_removal("vm-removing", lease_seconds=1, now=LATER)
    store.begin_removal("vm-late", lease_seconds=10, now=LATER)
    store.reserve("acme", "vm-open", SMALL, lease_seconds=1, now=NOW)
    assert store.expired(NOW) == ()
    found = store.expired(LATER + timedelta(seconds=1))
    assert [one.vm for one in found] == ["vm-changing", "vm-open", "vm-removing"]


def test_the_sweeper_is_given_what_a_clock_that_was_ahead_left_open(
    store: Store, acme: Tenant
) -> None:
    """TEN-09: its lease ends in years, and no request goes on for so long."""
    store.reserve("acme", "vm-open", SMALL, lease_seconds=3600, now=NOW + 3650 * DAY)
    store.reserve("acme", "vm-going", SMALL, lease_seconds=3600, now=NOW + timedelta(minutes=5))
    assert [one.vm for one in store.expired(NOW)] == ["vm-open"]


def test_everything_outlives_a_restart(store: Store, acme: Tenant, url: str) -> None:
    """TEN-04: a store that is opened again says the same, to the microsecond."""
    issued = store.issue_token("acme", now=NOW, expires=NOW + DAY)
    settled(store)
    store.begin_change("vm-a", LARGE, lease_seconds=LEASE_SECONDS, now=NOW)
    before = (store.tenants(), store.tokens(), store.allocations())
    store.close()
    with Store.open(url) as again:
        assert (again.tenants(), again.tokens(), again.allocations()) == before
        assert again.authenticate(issued.text, now=NOW) == issued.token
