"""Kills processes that append to one log, again and again, and looks what became of it.

Run as: python killer.py ROUNDS SEED FOLDER; prints one line with the sums. It forks and starts no
threads of its own, so that each child begins like a new process.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from ppn.audit import log as log_module
from ppn.audit.batches import read_batches
from ppn.audit.entry import Entry, parse
from ppn.audit.journal import NAME
from ppn.audit.log import Log, vkey_path
from ppn.audit.note import parse_verifier
from ppn.audit.verify import verify

ORIGIN = "ppn/audit/killed"
THREADS = 4
# The longest life of a child, in times of what it takes to its first word.
LONGEST = 5


def main(rounds: int, seed: int, root: Path) -> None:
    """Two children a round, each killed at a time of its own."""
    chance = random.Random(seed)
    folder, key = root / "audit", root / "audit.key"
    Log.open(folder, ORIGIN, key).close()
    longest = LONGEST * seconds_to_first_word(folder, key)
    acknowledged: dict[int, str] = {}
    torn = unpublished = published = 0
    for number in range(rounds):
        children = [started(folder, key, f"{number}-{which}") for which in range(2)]
        for child, _ in children:
            time.sleep(chance.random() * longest)
            os.kill(child, signal.SIGKILL)
        fresh: dict[int, str] = {}
        for child, pipe in children:
            os.waitpid(child, 0)
            fresh |= told(pipe)
        assert not fresh.keys() & acknowledged.keys()
        acknowledged |= fresh
        report = verify(folder, parse_verifier(vkey_path(key).read_text()))
        assert report.findings == (), report
        torn += report.torn_bytes > 0
        unpublished += report.published < report.size
        published = report.published
        check(folder, fresh)
    with Log.open(folder, ORIGIN, key) as log:
        assert log.size >= len(acknowledged)
        assert list(folder.rglob(".*.new")) == []
    report = verify(folder, parse_verifier(vkey_path(key).read_text()))
    assert report.findings == () and not report.torn_bytes
    assert report.published == report.size and published > 0 and unpublished > 0
    check(folder, acknowledged)
    print(len(acknowledged), report.size, torn)


def seconds_to_first_word(folder: Path, key: Path) -> float:
    """How long a child takes on this machine until an entry of its own is durable."""
    begun = time.monotonic()
    child, pipe = started(folder, key, "first")
    os.read(pipe, 1)
    took = time.monotonic() - begun
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(pipe)
    return took


def started(folder: Path, key: Path, name: str) -> tuple[int, int]:
    """A child that appends until it is killed, and the pipe in which it tells what is durable."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    log_module.PUBLISH_SECONDS = 0.01
    log = Log.open(folder, ORIGIN, key)
    for thread in range(THREADS):
        threading.Thread(target=append, args=(log, writer, f"{name}-{thread}")).start()
    threading.Event().wait(60)
    os._exit(1)


def append(log: Log, pipe: int, name: str) -> None:
    """Append for ever."""
    for number in range(1 << 30):
        vm = f"{name}-{number}"
        made = Entry(
            at=datetime.now(UTC),
            tenant="acme",
            vm=vm,
            operation="create",
            outcome="allowed",
            source="10.8.0.9",
            token="t",
            correlation_id="c" * 16,
        )
        os.write(pipe, f"{log.append(made)} {vm}\n".encode())


def told(pipe: int) -> dict[int, str]:
    """What a child had told before it died: VM by index."""
    with open(pipe, "rb") as file:
        lines = file.read().decode().splitlines()
    return {int(index): vm for index, vm in (line.split() for line in lines)}


def check(folder: Path, acknowledged: dict[int, str]) -> None:
    """Every acknowledged entry is where it was told to be."""
    with open(folder / NAME, "rb") as file:
        found = [data for batch in read_batches(file, 0) for data in batch.entries]
    for index, vm in acknowledged.items():
        assert parse(found[index]).vm == vm, index


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
