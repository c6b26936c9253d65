"""The agent's socket: who may speak, what is read, what is survived."""

from __future__ import annotations

import json
import os
import pwd
import random
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppn.host.agent.client import AgentSilent
from ppn.run import run
from ppn.wire.agent import Request, Response
from ppn.wire.frames import MAX_FRAME_BYTES, encode_frame, payload_length
from tests.integration.agent.agents import Agent, Ear, request
from tests.integration.host import still
from tests.integration.host.node import PPN, spec_text, wait_for

NOBODY = pwd.getpwnam("nobody")
DAEMON = pwd.getpwnam("daemon")
FRAMES = int(os.environ.get("PPN_TEST_FRAMES", "10000"))
# Sends frames given as hex on its standard input, and prints each answer.
SPEAK = """
import socket, sys
channel = socket.socket(socket.AF_UNIX)
channel.settimeout(60)
try:
    channel.connect(sys.argv[1])
except PermissionError:
    sys.exit("may not connect")
def take(size):
    content = b""
    while len(content) < size:
        part = channel.recv(size - len(content))
        if not part:
            sys.exit(f"closed after {len(content)} bytes")
        content += part
    return content
for line in sys.stdin:
    try:
        channel.sendall(bytes.fromhex(line))
        print(take(int.from_bytes(take(4), "big")).decode(), flush=True)
    except ConnectionError:
        sys.exit("closed after 0 bytes")
"""


def frame(asked: Request) -> bytes:
    """A request as it stands on the socket."""
    return encode_frame(asked.model_dump_json(exclude_none=True).encode())


def speak_as(agent: Agent, uid: int, gid: int, *asked: Request) -> tuple[list[Response], str]:
    """Requests from a process of another user; the answers, and how it ended."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", SPEAK, str(agent.node.paths.agent_socket)],
        input="\n".join(frame(one).hex() for one in asked),
        capture_output=True,
        text=True,
        user=uid,
        group=gid,
        extra_groups=[],
        timeout=120,
        check=False,
    )
    answers = [Response.model_validate_json(line) for line in done.stdout.splitlines()]
    return answers, done.stderr.strip()


def codes(answers: list[Response]) -> list[str]:
    """The problem of each answer; empty for a result."""
    return [answer.problem.code if answer.problem else "" for answer in answers]


@pytest.fixture
def channel(agent: Agent) -> Iterator[socket.socket]:
    with closing(connection(agent)) as found:
        yield found


def connection(agent: Agent) -> socket.socket:
    """A connection of root's."""
    found = socket.socket(socket.AF_UNIX)
    # With a time-out the kernel would not wait for room in the queue.
    found.connect(str(agent.node.paths.agent_socket))
    found.settimeout(60)
    return found


def exactly(channel: socket.socket, size: int) -> bytes:
    """So many bytes and no more, for the next frame may be there already."""
    content = b""
    while len(content) < size:
        part = channel.recv(size - len(content))
        assert part, "the connection was closed"
        content += part
    return content


def take(channel: socket.socket) -> Response:
    """The next answer."""
    return Response.model_validate_json(exactly(channel, payload_length(exactly(channel, 4))))


def test_one_socket_and_no_port(stopped: Agent) -> None:
    """NP-07, NP-08: a Unix socket for root and the proxy's group; no TCP listener."""
    stopped.start(proxy_user="nobody")
    assert stopped.process is not None
    path = stopped.node.paths.agent_socket
    found = path.stat()
    assert stat.filemode(found.st_mode) == "srw-rw----"
    assert (found.st_uid, found.st_gid) == (0, NOBODY.pw_gid)
    inodes = set()
    for link in Path(f"/proc/{stopped.process.pid}/fd").iterdir():
        # The agent works meanwhile, and closes files.
        with suppress(FileNotFoundError):
            inodes.add(os.readlink(link))
    listening = {
        f"socket:[{fields[9]}]"
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if (fields := line.split())[3] == "0A"
    }
    assert not inodes & listening
    listed = [
        line.split()[6]
        for line in Path("/proc/net/unix").read_text().splitlines()[1:]
        if line.endswith(str(path)) and line.split()[3] == "00010000"
    ]
    assert len(listed) == 1 and f"socket:[{listed[0]}]" in inodes


def test_who_may_speak(stopped: Agent, ear: Ear) -> None:
    """NP-08, HOST-02, FLEET-21: by the kernel's word, not the caller's."""
    stopped.start(proxy_user="nobody", controllers=[ear.url])
    session = ear.last().session
    answers, _ = speak_as(
        stopped,
        NOBODY.pw_uid,
        NOBODY.pw_gid,
        request("list"),
        request("destroy", session, vm="web"),
        request("destroy", vm="web"),
        request("destroy", "0" * 32, vm="web"),
        request("enforce", session),
    )
    assert codes(answers) == ["", "", "ticket_refused", "ticket_refused", "forbidden"]
    spent = request("destroy", session, vm="web")
    answers, _ = speak_as(stopped, NOBODY.pw_uid, NOBODY.pw_gid, spent, spent)
    assert codes(answers) == ["", "ticket_refused"]
    # Of the group, so that the file's mode lets it in, but not the proxy.
    answers, ended = speak_as(stopped, DAEMON.pw_uid, NOBODY.pw_gid, request("list"))
    assert (answers, ended) == ([], "closed after 0 bytes")
    answers, ended = speak_as(stopped, DAEMON.pw_uid, DAEMON.pw_gid, request("list"))
    assert (answers, ended) == ([], "may not connect")
    assert stopped.logged(event="connection closed at once", uid=DAEMON.pw_uid)


def test_ticket_of_an_earlier_agent(stopped: Agent, ear: Ear) -> None:
    """HOST-02: a ticket is for one session."""
    stopped.start(proxy_user="nobody", controllers=[ear.url])
    old = ear.last().session
    stopped.kill()
    stopped.start()
    assert ear.next().session != old
    answers, _ = speak_as(stopped, NOBODY.pw_uid, NOBODY.pw_gid, request("stop", old, vm="web"))
    assert codes(answers) == ["ticket_refused"]


def test_requests_follow_each_other(channel: socket.socket) -> None:
    """NP-09: one after the other, each with its own correlation id, garbage in between."""
    asked = [request("list"), request("show", vm="web"), request("list")]
    garbage = encode_frame(b"\xff{no json")
    channel.sendall(frame(asked[0]) + garbage + frame(asked[1]) + frame(asked[2]))
    answers = [take(channel) for _ in range(4)]
    assert codes(answers) == ["", "request_invalid", "vm_unknown", ""]
    assert [answer.correlation_id for answer in answers] == [
        asked[0].correlation_id,
        "",
        asked[1].correlation_id,
        asked[2].correlation_id,
    ]


@pytest.mark.parametrize(
    ("prefix", "code"),
    [(b"\0\0\0\0", "frame_invalid"), ((MAX_FRAME_BYTES + 1).to_bytes(4, "big"), "frame_too_long")],
)
def test_unsound_length_ends_the_connection(
    channel: socket.socket, prefix: bytes, code: str
) -> None:
    """NP-09: nothing after it is read."""
    channel.sendall(prefix + frame(request("list")))
    assert codes([take(channel)]) == [code]
    assert channel.recv(1) == b""


def test_half_a_frame_does_no_harm(agent: Agent) -> None:
    """NP-09: a caller that ends in the middle, and one that never goes on."""
    whole = frame(request("destroy", vm="web"))
    waiting = connection(agent)
    waiting.sendall(whole[:20])
    for end in (1, 4, len(whole) - 1):
        with closing(connection(agent)) as channel:
            channel.sendall(whole[:end])
    assert agent.do("list") == {"vms": []}
    # The bound on a frame's time.
    assert waiting.recv(1) == b""
    waiting.close()
    assert agent.logged(operation="destroy") == []


def test_ten_thousand_frames_of_garbage(agent: Agent) -> None:
    """NP-06: bytes, cut and changed requests; the agent stays up and nothing has changed."""
    before = agent.do("list"), agent.node.nothing_is_left()
    assert agent.process is not None
    pid = agent.process.pid
    chance = random.Random(1)
    sound = [
        request("spawn", vm=json.loads(spec_text({}))).model_dump_json(),
        request("balloon", vm="web", mib=64).model_dump_json(),
        request("console", vm="web").model_dump_json(),
    ]
    channel = connection(agent)
    answered = 0
    for turn in range(FRAMES):
        text = bytearray(chance.choice(sound).encode())
        # Always unsound: no frame of these may be taken for a request.
        for _ in range(chance.randrange(1, 4)):
            text[chance.randrange(len(text))] = chance.randrange(256)
        text[chance.randrange(3)] = 0
        payload = bytes(text) if turn % 3 else chance.randbytes(chance.randrange(1, 300))
        channel.sendall(encode_frame(payload))
        answered += codes([take(channel)]) == ["request_invalid"]
    channel.close()
    assert answered == FRAMES
    assert agent.do("list") == before[0] and agent.node.nothing_is_left()
    assert agent.process.pid == pid and not agent.process_ended()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.dictionaries(st.sampled_from(["operation", "vm", "version"]), json_values))
def test_any_json_is_answered(channel: socket.socket, body: dict[str, object]) -> None:
    """NP-06."""
    channel.sendall(encode_frame(json.dumps({"version": 1, "body": body}).encode()))
    assert codes([take(channel)]) == ["request_invalid"]


def test_deep_nesting_is_answered(channel: socket.socket) -> None:
    """NP-06: neither the reader's stack nor its time runs out."""
    for text in (b"[" * 500_000, b'{"a":' * 200_000, b'{"body":' + b"[" * 100_000):
        channel.sendall(encode_frame(text))
        assert codes([take(channel)]) == ["request_invalid"]


def test_too_many_connections(agent: Agent) -> None:
    """More than may be open are closed; those that are open are served, and room comes back."""
    many = [connection(agent) for _ in range(140)]
    wait_for("the surplus to be closed", lambda: agent.logged(event="connection closed at once"))
    many[0].sendall(frame(request("list")))
    assert codes([take(many[0])]) == [""]
    for channel in many:
        channel.close()

    def has_room() -> bool:
        try:
            return agent.do("list") == {"vms": []}
        except AgentSilent:
            # It was closed at once as well.
            return False

    wait_for("room", has_room)


def test_answer_that_comes_too_late(channel: socket.socket, agent: Agent) -> None:
    """The deadline is kept, the work goes on, and asking again finds it done."""
    order = json.loads(spec_text({"image": still.NAME}))
    asked, again = request("spawn", vm=order), request("spawn", vm=order)
    # Both at once: the work is still going on when the agent comes to the second.
    channel.sendall(frame(asked.model_copy(update={"deadline_seconds": 0.01})) + frame(again))
    assert codes([take(channel)]) == ["agent_timeout"]
    # The same order again is joined to the work that goes on.
    made = take(channel)
    assert made.result is not None and made.result["vm"]["state"] == "running"
    begun = agent.logged(event="operation begins", operation="spawn")
    assert len(begun) == 1 and begun[0]["correlation_id"] == asked.correlation_id


def test_caller_that_is_gone(agent: Agent) -> None:
    """A closed connection ends nothing."""
    order = json.loads(spec_text({"image": still.NAME}))
    with closing(connection(agent)) as channel:
        channel.sendall(frame(request("spawn", vm=order)))
    wait_for("the VM", lambda: [vm["state"] for vm in agent.do("list")["vms"]] == ["running"])


def test_second_agent_refuses(agent: Agent) -> None:
    """HOST-01: one agent per node."""
    done = run([PPN, "host", "agent"], timeout=60, accept=(1,), env=dict(agent.node.environment))
    assert (
        "agent_running" in done.stderr and str(agent.process and agent.process.pid) in done.stderr
    )
    assert agent.serves()


def test_service_manager_is_told(stopped: Agent, tmp_path: Path) -> None:
    """Type=notify: ready when it serves, alive while it looks, stopping when told to."""
    path = stopped.node.root / "notify"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(path))
        manager.settimeout(60)
        stopped.environment = {"NOTIFY_SOCKET": str(path)}
        stopped.start()
        said = ""
        while "WATCHDOG=1" not in said:
            said += manager.recv(4096).decode() + "\n"
        assert said.index("EXTEND_TIMEOUT_USEC=") < said.index("READY=1")
        stopped.end()
        while "STOPPING=1" not in said:
            said += manager.recv(4096).decode() + "\n"
    path.unlink()
    assert not stopped.node.paths.agent_socket.exists()


def test_started_without_what_it_needs(stopped: Agent) -> None:
    """What is missing is named, with the next step."""
    stopped.node.paths.agent_settings.parent.mkdir(parents=True, exist_ok=True)
    stopped.node.paths.agent_settings.unlink(missing_ok=True)
    for settings_file, word in (
        (None, "agent.json"),
        ('{"node": "server", "proxy_user": "nobody-at-all"}', "nobody-at-all"),
        ('{"node": "server", "controllers": ["ftp://x"]}', "controllers.0"),
    ):
        if settings_file is not None:
            stopped.node.paths.agent_settings.write_text(settings_file)
        done = run(
            [PPN, "host", "agent"], timeout=30, accept=(1, 5), env=dict(stopped.node.environment)
        )
        assert word in done.stderr and "deploy" in done.stderr
