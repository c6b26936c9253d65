"""WireGuard operations: change, no change, absent, unreadable, and what a dry run announces."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyinfra.api import FunctionCommand
from pyinfra.api.exceptions import FactProcessError
from pyinfra.context import ctx_host, ctx_state

from facts.wireguard import LiveInterface, LivePeer, WireGuard, WireGuardState, parse
from operations import wireguard
from operations.systemd import command
from ppn.inventory import Pool
from ppn.mesh.peers import KEEPALIVE_SECONDS, Interface, interface_of
from ppn.mesh.registry import Registry, load, render
from tests.unit.mesh.pools import SMALL, key_of, node, pool, registry_of
from tests.unit.operations.yielded import KnownHost, refusal, texts, yielded

DROP_IN = "/etc/systemd/system/wg-quick@ppn0.service.d/ppn.conf"
SUPERVISION = "[Service]\nRestart=always\n"
(SETTLED,) = texts([command("settle", "wg-quick@ppn0.service")])
# The host that operations run on in tests is called `node`.
NODE = node("node", 7, "d")
POOL = pool(*SMALL.nodes, NODE)
ABSENT = WireGuardState(
    kernel=True,
    key_mode=None,
    key_owner=None,
    public_key=None,
    files={"/etc/wireguard/ppn0.conf": None, DROP_IN: None, "/etc/ppn/mesh.json": None},
    applied=None,
    enabled=False,
    active=False,
    held=True,
    needs_reload=False,
    live=None,
)
KEYED = replace(ABSENT, key_mode="0600", key_owner="root:root", public_key=key_of("node"))


def converged(
    wanted: Interface, direct: frozenset[str] = frozenset(), *, kernel: bool = True
) -> WireGuardState:
    """A node whose interface is as wanted."""
    files = wireguard.wanted_files(wanted, None if kernel else SUPERVISION)
    keepalive = {peer.public_key: peer.keepalive for peer in wanted.peers}
    peers = {
        key: LivePeer(frozenset(networks), KEEPALIVE_SECONDS if keepalive[key] else None)
        for key, networks in wanted.allowed_ips(direct).items()
    }
    return replace(
        KEYED,
        kernel=kernel,
        files={path: file.status for path, file in files.items()},
        applied=files["/etc/wireguard/ppn0.conf"].status.sha256,
        enabled=True,
        active=True,
        # Of what the kernel does itself, systemd only knows that it was set up.
        held=not kernel,
        live=LiveInterface(wanted.port, peers),
    )


WANTED = interface_of(POOL, registry_of(POOL), "node")


@pytest.fixture
def registry(tmp_path: Path) -> str:
    path = tmp_path / "peers.json"
    path.write_text(render(registry_of(POOL)))
    return str(path)


def interface(state: WireGuardState | None, registry: str) -> tuple[list[Any], KnownHost]:
    return yielded(
        wireguard.interface,
        {WireGuard: state},
        pool=POOL,
        registry=registry,
        supervision=SUPERVISION,
    )


class Member:
    def __init__(self, name: str) -> None:
        self.name = name


def prepared(state: WireGuardState, registry: str, joining: tuple[str, ...]) -> list[Any]:
    """The commands of the interface while a run with these hosts is prepared."""
    host = KnownHost({WireGuard: state}, executing=False)
    host.state.active_hosts = [Member(name) for name in joining]  # type: ignore[attr-defined]  # our stand-in has it only here
    with ctx_state.use(host.state), ctx_host.use(host):
        operation = wireguard.interface._inner
        return list(operation(pool=POOL, registry=registry, supervision=SUPERVISION))


def test_key_is_made_on_the_node(tmp_path: Path) -> None:
    commands, _ = yielded(
        wireguard.key, {WireGuard: ABSENT}, interface="ppn0", registry=str(tmp_path / "peers.json")
    )
    (text,) = texts(commands)
    assert "wg genkey" in text and "umask 077" in text
    assert text.endswith("/etc/wireguard/ppn0.key")


def test_key_that_is_there_is_left_alone(registry: str) -> None:
    commands, host = yielded(wireguard.key, {WireGuard: KEYED}, interface="ppn0", registry=registry)
    assert commands == []
    assert host.noops == ["/etc/wireguard/ppn0.key is there, for root alone"]


@pytest.mark.parametrize("change", [{"key_mode": "0644"}, {"key_owner": "root:adm"}])
def test_key_that_others_could_read_is_mended_and_not_replaced(
    registry: str, change: dict[str, str]
) -> None:
    state = replace(KEYED, **change)  # type: ignore[arg-type]  # the fields named above hold text
    commands, _ = yielded(wireguard.key, {WireGuard: state}, interface="ppn0", registry=registry)
    assert texts(commands) == [
        "chown root:root /etc/wireguard/ppn0.key",
        "chmod 0600 /etc/wireguard/ppn0.key",
    ]


def test_a_recorded_key_that_is_gone_is_refused(registry: str) -> None:
    commands, _ = yielded(wireguard.key, {WireGuard: ABSENT}, interface="ppn0", registry=registry)
    assert "(key_lost)" in refusal(commands)


@pytest.mark.parametrize("operation", [wireguard.key, wireguard.registered])
def test_unreadable_state_is_refused(operation: Any, registry: str) -> None:
    commands, _ = yielded(operation, {WireGuard: None}, interface="ppn0", registry=registry)
    assert "refusing to act on an unknown state" in refusal(commands)


def test_public_key_is_recorded_once(tmp_path: Path) -> None:
    """MESH-04: the registry on the operator's machine gets the key, and only the public one."""
    path = tmp_path / "peers.json"
    arguments = {"interface": "ppn0", "registry": str(path)}
    (command,), host = yielded(wireguard.registered, {WireGuard: KEYED}, **arguments)
    assert isinstance(command, FunctionCommand)
    assert not path.exists()
    assert command.function(host.state, host, *command.args)
    assert load(path).keys == {"node": key_of("node")}
    assert yielded(wireguard.registered, {WireGuard: KEYED}, **arguments)[0] == []


def test_another_key_than_the_recorded_is_refused(registry: str) -> None:
    changed = replace(KEYED, public_key=key_of("intruder"))
    commands, _ = yielded(
        wireguard.registered, {WireGuard: changed}, interface="ppn0", registry=registry
    )
    assert "(key_changed)" in refusal(commands)


def test_a_damaged_registry_is_refused(registry: str) -> None:
    Path(registry).write_text("{")
    commands, _ = yielded(
        wireguard.registered, {WireGuard: KEYED}, interface="ppn0", registry=registry
    )
    assert "(registry_damaged)" in refusal(commands)
    assert "(registry_damaged)" in refusal(interface(KEYED, registry)[0])


def test_first_interface_is_written_enabled_and_started(registry: str) -> None:
    commands, _ = interface(KEYED, registry)
    write, *calls = commands
    files = json.loads(write.connector_arguments["_stdin"])
    assert [(file["path"], file["mode"]) for file in files] == [
        ("/etc/wireguard/ppn0.conf", "0600"),
        ("/etc/ppn/mesh.json", "0644"),
    ]
    assert "wg-quick strip" in files[0]["check"][2]
    assert texts(calls) == [
        "env SYSTEMCTL_SKIP_SYSV=1 systemctl --root=/ --quiet enable wg-quick@ppn0.service",
        SETTLED,
        "systemctl start wg-quick@ppn0.service",
    ]


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("direct", [frozenset[str](), frozenset({"server"})])
def test_second_run_has_no_command_whatever_the_paths(
    registry: str, direct: frozenset[str], kernel: bool
) -> None:
    """MESH-04, MESH-06: a peer on its direct path is no difference."""
    commands, host = interface(converged(WANTED, direct, kernel=kernel), registry)
    assert commands == []
    assert host.noops == ["ppn0 has its 4 peers"]


def test_interface_that_is_a_program_is_held_by_systemd_from_its_first_start(registry: str) -> None:
    commands, _ = interface(replace(KEYED, kernel=False), registry)
    write, *calls = commands
    files = json.loads(write.connector_arguments["_stdin"])
    assert (files[2]["path"], files[2]["content"]) == (DROP_IN, SUPERVISION)
    assert texts(calls) == [
        "env SYSTEMCTL_SKIP_SYSV=1 systemctl --root=/ --quiet enable wg-quick@ppn0.service",
        SETTLED,
        "systemctl start wg-quick@ppn0.service",
    ]


def test_program_that_runs_on_its_own_is_restarted_once(registry: str) -> None:
    state = replace(converged(WANTED, kernel=False), held=False)
    restart = "systemctl restart wg-quick@ppn0.service"
    assert texts(interface(state, registry)[0]) == [restart]
    before = replace(state, files={**state.files, DROP_IN: None})
    assert texts(interface(before, registry)[0][1:]) == [SETTLED, restart]


def test_a_run_that_was_cut_before_systemd_read_its_units_is_made_good(registry: str) -> None:
    state = replace(converged(WANTED, kernel=False), needs_reload=True)
    assert texts(interface(state, registry)[0]) == [SETTLED]


def test_changed_peer_is_synchronised_without_a_restart(registry: str) -> None:
    before = interface_of(SMALLER, registry_of(SMALLER), "node")
    commands, _ = interface(converged(before), registry)
    assert texts(commands[1:]) == ["/opt/ppn/venv/bin/ppn mesh sync"]


SMALLER = pool(SMALL.nodes[0], NODE)


def test_a_run_that_was_cut_before_synchronising_is_made_good(registry: str) -> None:
    state = replace(converged(WANTED), applied="0" * 64)
    assert texts(interface(state, registry)[0]) == ["/opt/ppn/venv/bin/ppn mesh sync"]


@given(st.sampled_from(sorted(WANTED.allowed_ips())), st.sampled_from(["gone", "none", "more"]))
def test_live_tunnels_changed_by_hand_are_noticed(key: str, how: str) -> None:
    state = converged(WANTED)
    assert state.live is not None
    peers = dict(state.live.peers)
    other = next(one for one in peers if one != key)
    if how == "gone":
        del peers[key]
    elif how == "none":
        peers[key] = replace(peers[key], allowed=frozenset())
    else:
        peers[key] = replace(peers[key], allowed=peers[key].allowed | peers[other].allowed)
    assert not wireguard.is_live(WANTED, replace(state.live, peers=peers))


def test_interface_that_vanished_is_brought_up_again(registry: str) -> None:
    state = replace(converged(WANTED), live=None)
    assert texts(interface(state, registry)[0]) == ["systemctl restart wg-quick@ppn0.service"]


def test_interface_that_systemd_did_not_make_is_refused(registry: str) -> None:
    state = replace(converged(WANTED), active=False)
    assert "(interface_foreign)" in refusal(interface(state, registry)[0])


def test_unreadable_interface_is_refused(registry: str) -> None:
    commands, _ = interface(None, registry)
    assert "refusing to act on an unknown state" in refusal(commands)


def test_dry_run_announces_peers_that_join_in_the_same_run(tmp_path: Path) -> None:
    """MESH-04: what the preparation announces is what the run does, also for new nodes."""
    path = tmp_path / "peers.json"
    known = Registry({name: key_of(name) for name in ("relay", "node")})
    path.write_text(render(known))
    now = converged(interface_of(POOL, known, "node"))
    assert prepared(now, str(path), joining=("node", "relay")) == []
    assert prepared(now, str(path), joining=("node", "server"))
    path.write_text(render(known.with_key("server", key_of("server"))))
    assert interface(now, str(path))[0]


def test_a_run_limited_to_one_node_needs_no_other(registry: str) -> None:
    """MESH-04: the registry stands for nodes that are not reached."""
    assert prepared(converged(WANTED), registry, joining=("node",)) == []


def test_node_that_is_in_no_pool_is_refused(registry: str) -> None:
    strangers: Pool = SMALL
    commands, _ = yielded(
        wireguard.interface,
        {WireGuard: KEYED},
        pool=strangers,
        registry=registry,
        supervision=SUPERVISION,
    )
    assert "(node_unknown)" in refusal(commands)


OUTPUT = f"""\
kernel
key 600 root:root
public {key_of("node")}
file present 600 root root file {"c" * 64} /etc/wireguard/ppn0.conf
file absent {DROP_IN}
file absent /etc/ppn/mesh.json
applied {"c" * 64}  -
ActiveState=active
SubState=running
UnitFileState=enabled
NeedDaemonReload=no
port 51820
peer {key_of("relay")}\t10.8.0.0/24 fd70:706e::1/128
peer {key_of("server")}\t(none)
keepalive {key_of("relay")}\t25
keepalive {key_of("server")}\toff
end"""


def test_fact_reads_everything() -> None:
    state = parse(OUTPUT.splitlines())
    assert state.kernel and state.enabled and state.active
    assert (state.key_mode, state.key_owner) == ("0600", "root:root")
    assert state.public_key == key_of("node")
    assert state.applied == "c" * 64
    assert state.files["/etc/ppn/mesh.json"] is None
    assert state.live is not None
    assert state.live.peers[key_of("server")] == LivePeer(frozenset(), None)
    assert state.live.peers[key_of("relay")].keepalive == 25


def test_fact_of_a_blank_node() -> None:
    lines = [
        "file absent /etc/wireguard/ppn0.conf",
        f"file absent {DROP_IN}",
        "file absent /etc/ppn/mesh.json",
        "ActiveState=inactive",
        "SubState=dead",
        "UnitFileState=",
        "NeedDaemonReload=no",
        "end",
    ]
    assert parse(lines) == replace(ABSENT, kernel=False)


@pytest.mark.parametrize(
    ("active", "sub", "is_active", "is_held"),
    [
        ("activating", "auto-restart", True, True),
        ("active", "exited", True, False),
        ("failed", "failed", False, True),
    ],
)
def test_what_systemd_says_of_the_interface(
    active: str, sub: str, is_active: bool, is_held: bool
) -> None:
    output = OUTPUT.replace("=active", f"={active}").replace("=running", f"={sub}")
    state = parse(output.splitlines())
    assert (state.active, state.held) == (is_active, is_held)


@pytest.mark.parametrize("cut", range(len(OUTPUT.splitlines())))
def test_output_that_was_cut_off_is_no_state(cut: int) -> None:
    with pytest.raises(FactProcessError):
        parse(OUTPUT.splitlines()[:cut])


def test_output_without_the_unit_is_no_state() -> None:
    with pytest.raises(FactProcessError, match="wg-quick"):
        parse([line for line in OUTPUT.splitlines() if "UnitFileState" not in line])


def test_fact_prints_no_private_key() -> None:
    """The private key never leaves the node, not even to whoever reads facts."""
    script = str(WireGuard().command(interface="ppn0"))
    assert "private-key" not in script and " dump" not in script and "showconf" not in script
