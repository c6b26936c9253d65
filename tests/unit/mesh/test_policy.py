"""Two path keepers agree on the path whatever the network does to their probes (MESH-06)."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppn.mesh import policy, wire
from ppn.mesh.policy import TIMING, Link, Phase, Probe
from tests.examples import examples
from tests.unit.mesh.simulation import Network, Simulation

delays = st.floats(0.0, 0.2)
seeds = st.integers(0, 2**32)
EPSILON = 1e-6


def perfect(delay: float) -> Network:
    return lambda now, sender, random: delay


def lossy(share: float, delay: float) -> Network:
    return lambda now, sender, random: None if random.random() < share else delay


def dead(now: float, sender: int, random: Random) -> None:
    return None


def one_way(works_from: int, delay: float) -> Network:
    return lambda now, sender, random: delay if sender == works_from else None


@given(delays)
def test_a_good_path_is_taken_and_the_ends_disagree_for_one_delay(delay: float) -> None:
    """MESH-06: the direct path is used when it exists."""
    run = Simulation(perfect(delay))
    run.run(10)
    assert run.both_direct
    assert run.changes() == 1
    assert all(length <= delay + EPSILON for length in run.disagreements())


@given(delays, seeds)
@settings(examples(0.4), derandomize=True)
def test_no_flap_under_a_tenth_of_random_loss(delay: float, seed: int) -> None:
    """MESH-06: hysteresis; two minutes at 10 % loss each way, and the path never changes."""
    run = Simulation(perfect(delay), seed)
    run.run(10)
    run.network = lossy(0.10, delay)
    run.run(120)
    assert run.both_direct
    assert run.changes() == 1


@given(delays, seeds)
@settings(examples(0.4), derandomize=True)
def test_a_lossy_path_is_still_found(delay: float, seed: int) -> None:
    run = Simulation(lossy(0.15, delay), seed)
    run.run(60)
    assert run.both_direct
    assert all(length <= TIMING.loss + TIMING.interval + delay for length in run.disagreements())


@given(delays, st.sampled_from([dead, "leader", "follower"]))
def test_a_path_that_dies_is_left_by_both(delay: float, how: object) -> None:
    """MESH-06: the link is removed, or one direction of it; traffic returns to the relay."""
    run = Simulation(perfect(delay))
    run.run(10)
    if how == "leader":
        run.network = one_way(0, delay)
    elif how == "follower":
        run.network = one_way(1, delay)
    else:
        run.network = dead
    run.run(TIMING.loss + TIMING.interval + 2 * delay + EPSILON)
    assert run.both_relayed
    bound = delay if how != dead else TIMING.interval + delay
    assert all(length <= bound + EPSILON for length in run.disagreements())


@given(st.sampled_from([0, 1]), delays)
def test_one_direction_alone_is_never_used(works_from: int, delay: float) -> None:
    """MESH-06: evidence must be there in both directions."""
    run = Simulation(one_way(works_from, delay))
    run.run(60)
    assert run.both_relayed and run.changes() == 0


@given(
    seeds,
    st.lists(
        st.tuples(
            st.floats(0.5, 20), st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5), st.booleans()
        ),
        min_size=1,
        max_size=8,
    ),
)
@examples(0.6)
def test_any_network_cannot_keep_the_ends_apart(
    seed: int, weather: list[tuple[float, float, float, float, bool]]
) -> None:
    """Loss, delay, reordering and restarts at will: disagreement stays within its bound."""
    run = Simulation(perfect(0.01), seed)
    run.run(5)
    longest = 0.01
    for seconds, there, back, jitter, restart in weather:
        losses = (there, back)
        longest = max(longest, jitter)

        def network(
            now: float,
            sender: int,
            random: Random,
            losses: tuple[float, float] = losses,
            jitter: float = jitter,
        ) -> float | None:
            return None if random.random() < losses[sender] else random.random() * jitter

        run.network = network
        if restart:
            run.restart(run.random.randrange(2))
        run.run(seconds)
    bound = TIMING.loss + TIMING.interval + longest + EPSILON
    assert all(length <= bound for length in run.disagreements())
    run.network = perfect(0.01)
    run.run(TIMING.hold_limit + 15)
    assert run.both_direct


@given(st.sampled_from([0, 1]), delays)
def test_a_restarted_keeper_takes_the_other_back_to_the_relay_and_up_again(
    node: int, delay: float
) -> None:
    run = Simulation(perfect(delay))
    run.run(10)
    run.restart(node)
    run.run(2 * delay + EPSILON)
    assert run.both_relayed
    run.run(10)
    assert run.both_direct


def test_hold_down_grows_with_each_failure_and_is_forgotten_in_calm() -> None:
    link = Link(leads=True, session=1)
    holds = []
    for _ in range(8):
        link = policy.fallen_back(link, 100.0)
        holds.append(link.held_until - 100.0)
    assert holds == [2, 4, 8, 16, 32, 60, 60, 60]
    calm = replace(link, phase=Phase.DIRECT, since=100.0, confirmed=True, evidence=221.0)
    assert policy.ticked(calm, 221.0).failures == 0
    assert policy.ticked(replace(calm, evidence=219.0), 219.0).failures == 8


def test_a_leader_that_is_not_followed_goes_back() -> None:
    link = replace(Link(leads=True, session=1), phase=Phase.DIRECT, since=10.0, evidence=10.9)
    assert policy.ticked(link, 10.9).is_direct
    assert not policy.ticked(link, 11.0).is_direct


def test_old_and_doubled_probes_change_nothing() -> None:
    run = Simulation(perfect(0.01))
    run.run(10)
    link = run.links[0]
    old = Probe(Phase.RELAY, link.peer_session, link.peer_sequence, link.session)
    assert policy.received(link, old, run.now) is link
    before = replace(old, session=link.peer_session - 1, sequence=2**40)
    assert policy.received(link, before, run.now) is link


def test_a_peer_whose_clock_went_back_is_heard_again_once_forgotten() -> None:
    link = Link(leads=True, session=1, peer_session=9, peer_sequence=9, heard=0.0)
    probe = Probe(Phase.RELAY, 3, 1, 0)
    assert policy.received(link, probe, 3.9) is link
    assert policy.received(link, probe, 4.0).peer_session == 3


@given(
    st.builds(
        Probe,
        st.sampled_from(Phase),
        st.integers(1, 2**64 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**64 - 1),
    )
)
def test_wire_form_reads_back(probe: Probe) -> None:
    assert wire.decode(wire.encode(probe)) == probe


@given(st.binary(max_size=64))
def test_foreign_datagrams_are_no_probes(datagram: bytes) -> None:
    probe = wire.decode(datagram)
    assert probe is None or wire.encode(probe) == datagram


@pytest.mark.parametrize("change", [(0, b"X"), (4, b"\x02"), (5, b"\x03"), (7, b"\x01")])
def test_another_version_phase_or_magic_is_no_probe(change: tuple[int, bytes]) -> None:
    datagram = wire.encode(Probe(Phase.READY, 1, 1, 1))
    offset, byte = change
    assert wire.decode(datagram[:offset] + byte + datagram[offset + 1 :]) is None


@given(st.booleans(), st.sampled_from([Phase.RELAY, Phase.READY]))
def test_being_heard_is_no_evidence_without_an_echo(leads: bool, phase: Phase) -> None:
    """MESH-06: probes that do not say they heard us count for one direction only."""
    link = Link(leads=leads, session=5)
    for number in range(1, 20):
        link = policy.received(link, Probe(phase, 9, number, 0), number * TIMING.interval)
    assert link.phase is Phase.RELAY
    assert link.evidence is None


def test_an_end_that_is_not_direct_says_so_at_once_to_one_that_is() -> None:
    link = Link(leads=True, session=5, due=100.0)
    answer = policy.received(link, Probe(Phase.DIRECT, 9, 1, 5), 10.0)
    assert answer.phase is Phase.RELAY
    assert answer.due == 10.0
