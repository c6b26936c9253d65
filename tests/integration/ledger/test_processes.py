"""Processes that extend one ledger: killed at any point, and two at a time."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ppn.pool import keys, store
from ppn.pool.ledger import Grant, read
from tests.unit.pool.samples import NOW, lines

WRITER = Path(__file__).parent / "writer.py"
STEPPER = Path(__file__).parent / "stepper.py"
ROOT = Path(__file__).parents[3]


@contextmanager
def writer(path: Path, key: Path, prefix: str) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that extends the ledger; it is dead when the block ends."""
    process = subprocess.Popen(
        [sys.executable, str(WRITER), str(path), str(key), prefix],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def written(process: subprocess.Popen[str], count: int) -> int:
    """Wait for some entries and return the number of the last one."""
    assert process.stdout is not None
    return [int(process.stdout.readline()) for _ in range(count)][-1]


def killed(process: subprocess.Popen[str]) -> list[int]:
    """Kill -9, and the entries that were reported and not yet read."""
    process.kill()
    assert process.stdout is not None
    # Not by `communicate`: it leaves out what came with a line that was read before.
    return [int(line) for line in process.stdout]


def test_kill_at_any_point_leaves_a_sound_ledger(tmp_path: Path) -> None:
    """LED-01: after each SIGKILL it verifies, and has all that was reported."""
    path, key = tmp_path / "ledger.jsonl", tmp_path / "operator.key"
    trusted = keys.generate(key, keys.public_path(key))
    chance = random.Random(7)
    before = b""
    for turn in range(12):
        with writer(path, key, "abcdefghijkl"[turn]) as process:
            last = written(process, chance.randint(1, 6))
            time.sleep(chance.random() / 50)
            last = max([last, *killed(process)])
        after = path.read_bytes()
        assert after.startswith(before)
        added = read(after, trusted).entries[len(lines(before)) :]
        assert last + 1 <= len(added) <= last + 2
        assert [entry.weight for entry in added] == list(range(1, len(added) + 1))
        before = after
    store.extend(path, keys.load_private(key), {"end": Grant("end", 1, 0)}, NOW)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "ledger.jsonl",
        "operator.key",
        "operator.key.pub",
    ]


def test_two_processes_extend_one_ledger(tmp_path: Path) -> None:
    """LED-01: the lock keeps every entry of both, in one chain."""
    path, key = tmp_path / "ledger.jsonl", tmp_path / "operator.key"
    trusted = keys.generate(key, keys.public_path(key))
    with writer(path, key, "a") as first, writer(path, key, "b") as second:
        reported = [written(process, 12) for process in (first, second)]
        reported = [
            max([last, *killed(p)]) for last, p in zip(reported, (first, second), strict=True)
        ]
    entries = read(path.read_bytes(), trusted).entries
    for prefix, last in zip("ab", reported, strict=True):
        weights = [entry.weight for entry in entries if entry.vm.startswith(prefix)]
        assert weights == list(range(1, len(weights) + 1))
        assert len(weights) > last


def test_kill_at_every_step_leaves_the_old_ledger_or_the_new(tmp_path: Path) -> None:
    """LED-01: SIGKILL before each line that runs while a ledger is extended and installed."""
    path, key = tmp_path / "ledger.jsonl", tmp_path / "operator.key"
    trusted = keys.generate(key, keys.public_path(key))
    store.extend(path, keys.load_private(key), {"a": Grant("a", 1, 0)}, NOW)
    for action in ("extend", "install"):
        before = path.read_bytes()
        done = subprocess.run(
            [sys.executable, str(STEPPER), action, str(path), str(key)],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        # One line for each kill: what it left.
        left = done.stdout.split()
        assert set(left) == {"old", "new"} and left.count("old") > 20, left
        assert path.read_bytes().startswith(before)
        assert len(read(path.read_bytes(), trusted).entries) == len(lines(before)) + 1
        assert [p.name for p in tmp_path.glob(".*")] == []
