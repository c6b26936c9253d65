"""Nodes, controllers and clients, and a network that delays, reorders, loses and is cut.

A schedule is a short sequence of steps drawn by a seed. After each step the invariants hold that
can be judged at that moment; at the end everything heals and everybody must agree on the truth.

Clocks: each controller has its own, that starts anywhere and never jumps, as a monotonic clock
does. Nothing here has a wall clock: registry and placement are never told one.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from random import Random

from ppn.fleet.model import MARGIN_MIB, Demand
from ppn.fleet.node import Reservation
from ppn.fleet.registry import SETTLE_SECONDS
from ppn.fleet.settings import STALE_SECONDS
from ppn.wire.heartbeat import Heartbeat
from tests.simulation.agent import BUFFER_MIB, Agent
from tests.simulation.controller import CALL_SECONDS, Controller
from tests.simulation.traffic import DEMANDS, Answer, Message

STEPS = 18
# A request or an answer that takes longer is given up; so are heartbeats, a little sooner
# than controllers rely on.
REQUEST_SECONDS = 5.0
BEAT_SECONDS = SETTLE_SECONDS - 0.001
# Requests and answers; pydantic takes long to say that something is no heartbeat.
CALLS = (Reservation, tuple)


class World:
    """One schedule.

    Args:
        seed: all chance comes from it.
        log: takes a line for each thing that happens; None for speed.
    """

    def __init__(self, seed: int, log: Callable[[str], None] | None = None) -> None:
        self.random = random = Random(seed)
        self.log = log
        self.now = 0.0
        self.agents = [Agent(number, random) for number in range(random.choice((2, 2, 3, 4)))]
        self.addresses = {agent.name: agent.address for agent in self.agents}
        self.numbers = {agent.name: agent.number for agent in self.agents}
        self.epochs = [random.random() * 1e6 for _ in range(random.choice((1, 2, 2, 2, 3)))]
        self.controllers = [self.started(number) for number in range(len(self.epochs))]
        self.wire: list[Message] = []
        self.cuts: set[tuple[int, int]] = set()
        self.ids = count()
        self.demands: dict[str, Demand] = {}
        self.told: dict[str, str] = {}
        self.doomed: set[str] = set()
        self.once_running: set[str] = set()
        self.doubles = 0
        self.placed = 0

    def run(self) -> None:
        """Let everything happen, then heal and compare."""
        for agent in self.agents:
            self.beat(agent)
            if self.random.random() < 0.8:
                self.deliver_all()
        for _ in range(STEPS):
            self.step()
        self.heal()
        self.agree()

    def step(self) -> None:
        """One thing happens."""
        self.advance(self.random.expovariate(2.0))
        chance = self.random.random()
        for weight, action in ACTIONS:
            chance -= weight
            if chance < 0:
                action(self)
                return

    def note(self, text: str, *parts: object) -> None:
        """Log what happens; the text has a `{}` for each part."""
        if self.log is not None:
            self.log(f"{self.now:9.3f} {text.format(*parts)}")

    def create(self) -> None:
        """A client wants a VM, or asks again for one of whose fate it was not told."""
        unsure = [vm for vm, told in self.told.items() if told == "unknown"]
        if unsure and self.random.random() < 0.5:
            vm = self.random.choice(unsure)
        else:
            vm = f"vm-{next(self.ids)}"
            self.demands[vm] = self.random.choice(DEMANDS)
        controller = self.random.choice(self.controllers)
        number = self.controllers.index(controller)
        self.note("create {} {} at {}", vm, self.demands[vm], number)
        self.told[vm] = "unknown"
        known = controller.registry.find(vm, controller.now)
        if not known:
            controller.refused.pop(vm, None)
            controller.create(vm, self.demands[vm])
        elif self.found(controller, known[0].node, vm):
            self.says(vm, "running")

    def found(self, controller: Controller, node: str, vm: str) -> bool:
        """Whether a VM a controller knows of is there and ready, asked of its node itself."""
        number = self.numbers[node]
        if (self.controllers.index(controller), number) in self.cuts:
            return False
        there = self.agents[number].vms.get(vm)
        return there is not None and there.state != "creating"

    def batch(self) -> None:
        """A client wants several VMs."""
        controller = self.random.choice(self.controllers)
        wanted = {}
        for _ in range(self.random.choice((2, 3, 4))):
            vm = f"vm-{next(self.ids)}"
            wanted[vm] = self.demands[vm] = self.random.choice(DEMANDS)
            self.told[vm] = "unknown"
        self.note("batch {} at {}", list(wanted), self.controllers.index(controller))
        controller.create_all(wanted)

    def destroy(self) -> None:
        """A client wants a VM gone; the call is short, so it happens in one step."""
        controller = self.random.choice(self.controllers)
        if not self.told:
            return
        vm = self.random.choice(list(self.told))
        for held in controller.registry.find(vm, controller.now):
            agent = self.agents[self.numbers[held.node]]
            there = agent.vms.get(vm)
            cut = (self.controllers.index(controller), agent.number) in self.cuts
            if cut or (there is not None and there.state == "creating"):
                continue
            if vm in controller.calls and controller.calls[vm].ended is None:
                continue
            self.note("destroy {} on {} at {}", vm, agent.name, self.controllers.index(controller))
            self.doomed.add(vm)
            if agent.vms.pop(vm, None) is not None:
                self.beat(agent)
            if self.random.random() < 0.9:
                controller.destroyed(vm, agent.name)

    def says(self, vm: str, told: str) -> None:
        """A client is told something; running is only said of what runs."""
        self.note("client is told that {} is {}", vm, told)
        self.told[vm] = told
        if told == "running":
            holders = [agent for agent in self.agents if vm in agent.vms]
            ready = [agent for agent in holders if agent.vms[vm].state != "creating"]
            assert ready or vm in self.doomed, f"{vm} is said to run and does not"
            self.once_running.add(vm)

    def beat(self, agent: Agent) -> None:
        """A node tells every controller what it holds; older heartbeats are mostly not sent."""
        content, number = agent.heartbeat(), agent.number
        if self.wire and self.random.random() < 0.8:
            self.wire = [
                one for one in self.wire if one.node != number or isinstance(one.content, CALLS)
            ]
        for controller in range(len(self.controllers)):
            self.post(controller, number, content)

    def beats(self) -> None:
        """A node's regular heartbeat."""
        self.beat(self.random.choice(self.agents))

    def work(self) -> None:
        """A node ends making a VM, well or not."""
        making = [
            (agent, vm)
            for agent in self.agents
            for vm in agent.vms.values()
            if vm.state == "creating"
        ]
        if not making:
            return
        agent, vm = self.random.choice(making)
        made = self.random.random() < 0.85
        self.note("{} has {} {}", agent.name, "made" if made else "failed to make", vm.id)
        if made:
            vm.become("running")
        else:
            self.remove(agent, vm.id)
        for number, controller in enumerate(self.controllers):
            call = controller.calls.get(vm.id)
            if call is not None and call.reservation.node == agent.name:
                answer = (call.reservation, "running" if made else "start_failed")
                self.post(number, agent.number, answer)
        self.beat(agent)

    def remove(self, agent: Agent, vm: str) -> None:
        """A VM that was being made is no more."""
        del agent.vms[vm]
        elsewhere = any(vm in other.vms for other in self.agents)
        assert elsewhere or vm not in self.once_running or vm in self.doomed, f"{vm} is lost"

    def reboot(self) -> None:
        """A node, or its agent alone, starts anew; what was being made is undone or finished."""
        agent = self.random.choice(self.agents)
        self.note("{} starts anew", agent.name)
        agent.begin()
        power = self.random.random() < 0.5
        for vm in list(agent.vms.values()):
            if vm.state == "creating" and self.random.random() < 0.5:
                self.remove(agent, vm.id)
            elif vm.state == "creating" or power:
                vm.become("running" if self.random.random() < 0.8 else "stopped")
        self.beat(agent)

    def admit(self, message: Message, reservation: Reservation) -> None:
        """A node is asked to make a VM."""
        agent, vm = self.agents[message.node], reservation.vm
        refusal = agent.refusal(vm, reservation.demand, reservation.address)
        if reservation.session != agent.session:
            refusal = "ticket_refused"
        elif refusal is None and self.random.random() < 0.05:
            refusal = "libvirt_unavailable"
        if refusal == "vm_exists":
            refusal = "running"  # made by an earlier request for the same
        if refusal is not None:
            self.note("{} answers {} for {}", agent.name, refusal, vm)
            self.post(message.controller, message.node, (reservation, refusal))
            return
        self.note("{} begins to make {}", agent.name, vm)
        agent.admit(vm, reservation.demand, reservation.address)
        self.placed += 1
        if sum(vm in other.vms for other in self.agents) > 1:
            self.doubles += 1
            # One controller alone never asks two nodes for the same.
            assert len(self.controllers) > 1, f"{vm} is doubled"
        self.judge(agent)
        self.beat(agent)

    def judge(self, agent: Agent) -> None:
        """No node has more than it can hold, and no address is held twice."""
        vcpus, memory, disk = agent.figures()
        assert vcpus <= agent.topology.cpus, f"{agent.name} is overcommitted: {vcpus} vCPUs"
        assert memory <= agent.topology.memory_mib - BUFFER_MIB, f"{agent.name}: {memory} MiB"
        assert disk <= agent.disk_mib, f"{agent.name}: {disk} MiB of disk"
        addresses = [vm.address for vm in agent.vms.values() if vm.address is not None]
        assert len(set(addresses)) == len(addresses), f"{agent.name}: an address is held twice"

    def post(self, controller: int, node: int, content: Heartbeat | Reservation | Answer) -> None:
        """Put something on its way."""
        if (controller, node) not in self.cuts:
            self.wire.append(Message(controller, node, self.now, content))

    def deliver(self) -> None:
        """Something arrives, not always what was sent first."""
        for _ in range(3):
            if self.wire:
                any_one = self.random.random() < 0.2
                at = self.random.randrange(len(self.wire)) if any_one else 0
                self.arrive(self.wire.pop(at))

    def deliver_all(self) -> None:
        """Everything on its way arrives, and what follows from it."""
        while self.wire:
            self.arrive(self.wire.pop(0))

    def arrive(self, message: Message) -> None:
        """Something arrives, unless it was given up or the way is cut."""
        content, age = message.content, self.now - message.made
        if (message.controller, message.node) in self.cuts:
            return
        controller = self.controllers[message.controller]
        if not isinstance(content, CALLS):
            if age < BEAT_SECONDS:
                controller.hear(content)
        elif age >= REQUEST_SECONDS:
            return
        elif isinstance(content, Reservation):
            self.admit(message, content)
        else:
            reservation, code = content
            self.note("controller {} hears {} for {}", message.controller, code, reservation.vm)
            controller.answered(reservation, code)

    def lose(self) -> None:
        """Something on its way is lost."""
        if self.wire:
            self.wire.pop(self.random.randrange(len(self.wire)))

    def wait(self) -> None:
        """Nothing happens for long: calls time out, nodes become stale."""
        self.advance(self.random.choice((4.0, 9.0, 16.0, STALE_SECONDS + 1.0)))

    def cut(self) -> None:
        """The mesh between a controller and a node is cut, or all is well again."""
        if self.cuts and self.random.random() < 0.5:
            self.cuts.clear()
        else:
            pair = (
                self.random.randrange(len(self.controllers)),
                self.random.randrange(len(self.agents)),
            )
            self.cuts.add(pair)

    def crash(self) -> None:
        """A controller is killed and starts anew; its connections end, sent or not."""
        number = self.random.randrange(len(self.controllers))
        self.note("controller {} is killed", number)
        sent = [one for one in self.wire if one.controller == number]
        self.wire = [one for one in self.wire if one.controller != number]
        for message in sent:
            if isinstance(message.content, Reservation) and self.random.random() < 0.5:
                self.arrive(message)
        self.wire = [one for one in self.wire if one.controller != number]
        self.controllers[number] = self.started(number)
        # It warms up: until it has heard every node it is asked nothing.
        for agent in self.agents:
            self.cuts.discard((number, agent.number))
            self.controllers[number].hear(agent.heartbeat())

    def started(self, number: int) -> Controller:
        """A controller that knows nothing yet."""

        def send(reservation: Reservation) -> None:
            self.note("controller {} asks {} for {}", number, reservation.node, reservation.vm)
            self.post(number, self.numbers[reservation.node], reservation)

        return Controller(self.addresses, self.epochs[number] + self.now, send, self.says)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        for number, controller in enumerate(self.controllers):
            controller.now = self.epochs[number] + self.now
            if controller.calls:
                controller.time_out()

    def heal(self) -> None:
        """Everything comes back, all calls end, and every node is heard."""
        self.note("all heals")
        self.cuts.clear()
        self.wire.clear()
        for agent in self.agents:
            for vm in agent.vms.values():
                if vm.state == "creating":
                    vm.become("running")
        self.advance(CALL_SECONDS + 1.0)
        self.advance(SETTLE_SECONDS + 1.0)
        self.hear_all()
        # Who has heard sessions in the wrong order believes the right one after a while.
        if any(
            controller.beats[agent.name].content.session != agent.session
            for controller in self.controllers
            for agent in self.agents
        ):
            self.advance(STALE_SECONDS)
            self.hear_all()

    def hear_all(self) -> None:
        """Every controller hears every node."""
        for agent in self.agents:
            self.beat(agent)
        self.deliver_all()

    def agree(self) -> None:
        """Every controller knows the truth: VMs, doubles, and what is free, to the last MiB."""
        truth = sorted((vm, agent.name) for agent in self.agents for vm in agent.vms)
        there = {vm for vm, _ in truth}
        lost = self.once_running - self.doomed - there
        assert not lost, f"lost: {lost}"
        names = [vm for vm, _ in truth]
        doubled = {vm for vm in there if names.count(vm) > 1}
        for controller in self.controllers:
            registry = controller.registry
            held = [(one.report.id, one.node) for one in registry.vms(controller.now)]
            assert held == truth, f"VMs are {truth}, a controller says {held}"
            assert set(registry.doubled()) == doubled
            for agent in self.agents:
                view = registry.index.view(agent.name)
                assert view is not None, f"{agent.name} is no candidate"
                vcpus, memory, disk = agent.figures()
                physical = agent.topology.memory_mib - BUFFER_MIB
                assert view.free_vcpus == agent.topology.cpus - vcpus
                assert view.free_memory_mib == physical - memory - MARGIN_MIB
                assert view.free_disk_mib == agent.disk_mib - disk


ACTIONS: list[tuple[float, Callable[[World], None]]] = [
    (0.36, World.deliver),
    (0.22, World.create),
    (0.14, World.work),
    (0.08, World.destroy),
    (0.05, World.batch),
    (0.04, World.beats),
    (0.03, World.wait),
    (0.02, World.lose),
    (0.02, World.cut),
    (0.02, World.reboot),
    (0.02, World.crash),
]
