"""Whatever is killed, late, doubled or lost: one node at most can run a VM, and at the end one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ppn.fleet.moving.drive import LAST
from ppn.fleet.moving.policy import Next, Will
from tests.examples import examples
from tests.unit.host.builders import UUID
from tests.unit.moving.world import PARTS, SPEC, World, new_world

WILLS = st.builds(Will, back=st.booleans())
ROUNDS = 60
# What may happen, with a number that says to whom.
# What may happen, the usual more often, with a number that says to whom.
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["drive"] * 6
            + ["step"] * 8
            + [
                "look",
                "order",
                "arrive",
                "again",
                "again",
                "stray",
                "stray",
                "kill",
                "boot",
                "give up",
            ]
        ),
        st.integers(0, 7),
    ),
    min_size=30,
    max_size=120,
)


# Orders that some controller may have given at any time, by what it saw long ago.
STRAYS = (Next.BACK, Next.COMMIT, Next.DEPART, Next.PREPARE)


def happen(world: World, event: str, number: int) -> None:
    """Let one thing happen."""
    controller = world.controllers[number % 2]
    host = (world.here, world.there)[number % 2]
    if event in ("look", "drive"):
        world.look(controller)
    if event in ("order", "drive"):
        world.order(controller)
    if event == "drive":
        world.arrive(world.orders.pop())
    elif event == "arrive" and world.orders:
        world.arrive(world.orders.pop(number % len(world.orders)))
    elif event == "again" and world.sent_before:
        world.arrive(world.sent_before[number % len(world.sent_before)])
    elif event == "stray":
        world.arrive(STRAYS[number % len(STRAYS)])
    elif event == "step" and world.going:
        world.step(number % len(world.going))
    elif event in ("kill", "boot"):
        world.kill(host, boots=event == "boot")
    elif event == "give up":
        controller.will = Will(True, controller.will.rest, controller.will.taken)


def bring_to_its_end(world: World) -> Next:
    """From here on nothing goes wrong; one controller drives, and what was late arrives first."""
    while world.orders:
        world.arrive(world.orders.pop())
        world.check()
    for _ in range(ROUNDS):
        while world.going:
            world.step(0)
            world.check()
        world.look(world.controllers[0])
        chosen = world.chosen(world.controllers[0])
        if chosen in LAST:
            return chosen
        world.order(world.controllers[0])
        world.arrive(world.orders.pop())
        world.check()
    raise AssertionError(f"no end: {world.here} {world.there}")


@examples(1.5)
@given(EVENTS, WILLS, WILLS)
def test_one_node_can_run_it_whatever_happens(
    events: list[tuple[str, int]], first: Will, second: Will
) -> None:
    """MIG-01: never both, never neither for good, never without its data."""
    world = new_world(first, second)
    for event, number in events:
        happen(world, event, number)
        world.check()
    outcome = bring_to_its_end(world)
    holder, other = world.here, world.there
    if outcome is Next.DONE:
        holder, other = other, holder
    else:
        assert outcome is Next.FAILED
    assert holder.can_run and holder.runs and holder.data == PARTS
    assert other.sidecar is None and not other.runs
    assert holder.sidecar is not None
    kept = holder.sidecar
    assert (kept.uuid, kept.order, kept.spec.owner) == (UUID, "o", SPEC.owner)
    assert kept.spec.address == (None if outcome is Next.DONE else SPEC.address)


def test_undisturbed_it_arrives() -> None:
    """The model itself moves a VM when nothing goes wrong."""
    assert bring_to_its_end(new_world(Will(), Will())) is Next.DONE


def test_called_back_it_stays() -> None:
    """MIG-02."""
    assert bring_to_its_end(new_world(Will(back=True), Will())) is Next.FAILED
