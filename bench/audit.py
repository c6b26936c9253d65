"""Durable audit entries per second, alone and grouped, against SQLite; verifying 10^6 entries."""

from __future__ import annotations

import itertools
import queue
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.result import Result, machine
from ppn.audit.entry import Entry, encode
from ppn.audit.journal import NAME, Journal
from ppn.audit.log import Log
from ppn.audit.note import LOG, Signer
from ppn.audit.publish import Publisher
from ppn.audit.verify import verify

ORIGIN = "ppn/audit/bench"
ALONE = 200
THREADS = 64
GROUPED = 6400
VERIFIED = 1_000_000
BATCH = 500
# Every batch of one entry costs its own root and line.
VERIFIED_ALONE = 100_000
AIM_PER_SECOND = 2000
START = datetime(2025, 6, 1, tzinfo=UTC)

Append = Callable[[int], object]


def measure(runs: int) -> Result:
    """Append the same entries to our log and to a table, in pairs, then verify a large log.

    The peer is what one would take otherwise: a table in SQLite, WAL, synchronous=FULL, with the
    same group commit in front of it; it keeps no hashes, no signatures and no tiles.

    Args:
        runs: how many pairs.
    """
    series: dict[str, list[float]] = {
        f"{who}_{how}": [] for who in ("ours", "peer") for how in ("alone", "grouped")
    }
    with tempfile.TemporaryDirectory(prefix="ppn-bench-", dir="/var/tmp") as root:
        for run in range(runs):
            for who, opened in sorted(OPENED.items(), reverse=bool(run % 2)):
                with opened(Path(root) / f"{who}{run}") as append:
                    series[f"{who}_alone"].append(ALONE / alone(append))
                    series[f"{who}_grouped"].append(GROUPED / grouped(append))
            last = {name: round(values[-1]) for name, values in series.items()}
            print(f"pair {run + 1}: entries per second: {last}", flush=True)
        figures = {
            "verify_seconds_1000000_entries_in_batches_of_500": verified(
                Path(root) / "large", VERIFIED, BATCH
            ),
            "verify_seconds_100000_entries_each_alone": verified(
                Path(root) / "single", VERIFIED_ALONE, 1
            ),
        }
    return result(series, figures)


def entry(number: int) -> Entry:
    """An intent as the tenant proxy writes it."""
    return Entry(
        at=START + timedelta(milliseconds=number),
        tenant=f"tenant{number % 50}",
        vm=f"vm-{number % 5000:016x}",
        operation="create",
        outcome="allowed",
        source="10.8.0.200",
        token="0123456789ab",
        correlation_id=f"{number:032x}",
    )


def alone(append: Append) -> float:
    """Seconds for entries one after the other."""
    start = time.perf_counter()
    for number in range(ALONE):
        append(number)
    return time.perf_counter() - start


def grouped(append: Append) -> float:
    """Seconds for entries of many threads, each of which waits for its own."""
    numbers = itertools.count(ALONE)

    def work() -> None:
        for _ in range(GROUPED // THREADS):
            append(next(numbers))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


@contextmanager
def our_log(folder: Path) -> Iterator[Append]:
    """An audit log, publishing meanwhile as it always does."""
    folder.mkdir()
    with Log.open(folder / "audit", ORIGIN, folder / "key") as log:
        yield lambda number: log.append(entry(number))


@contextmanager
def sqlite_table(folder: Path) -> Iterator[Append]:
    """A table with a thread that writes all that waits in one transaction."""
    folder.mkdir()
    waiting: queue.Queue[tuple[bytes, Future[None]] | None] = queue.Queue()
    thread = threading.Thread(target=write, args=(folder / "audit.db", waiting))
    thread.start()

    def append(number: int) -> None:
        made: Future[None] = Future()
        waiting.put((encode(entry(number)), made))
        made.result()

    yield append
    waiting.put(None)
    thread.join()


OPENED = {"ours": our_log, "peer": sqlite_table}


def write(path: Path, waiting: queue.Queue[tuple[bytes, Future[None]] | None]) -> None:
    """Insert what waits until there is no more."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, entry BLOB NOT NULL)")
    while first := waiting.get():
        batch = [first]
        while not waiting.empty() and (more := waiting.get()):
            batch.append(more)
        database.execute("BEGIN IMMEDIATE")
        database.executemany(
            "INSERT INTO entries (entry) VALUES (?)", [(data,) for data, _ in batch]
        )
        database.execute("COMMIT")
        for _, made in batch:
            made.set_result(None)
    database.close()


def verified(folder: Path, entries: int, batch: int) -> float:
    """Seconds to verify a whole log: journal, tiles, checkpoint.

    Args:
        folder: made.
        entries: how many it has.
        batch: how many were written together.
    """
    folder.mkdir()
    signer = Signer(ORIGIN, Ed25519PrivateKey.generate())
    publisher = Publisher(folder, signer)
    publisher.resume()
    journal = Unsynced(folder / NAME, signer)
    journal.open()
    for start in range(0, entries, batch):
        journal.append([encode(entry(number)) for number in range(start, start + batch)])
    publisher.publish(journal.at)
    journal.close()
    start_time = time.perf_counter()
    report = verify(folder, signer.verifier(LOG))
    seconds = time.perf_counter() - start_time
    if report.findings or report.size != entries:
        raise RuntimeError(f"the log of the benchmark is damaged: {report}")
    taken = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
    print(
        f"verified {entries} entries in {seconds:.1f} s; {taken / entries:.0f} bytes of disk each",
        flush=True,
    )
    return round(seconds, 2)


class Unsynced(Journal):
    """A journal that does not wait for the disk: for logs that are only read."""

    def _write(self, data: bytes) -> None:
        with open(self.path, "ab") as file:
            file.write(data)


def result(series: dict[str, list[float]], figures: dict[str, float]) -> Result:
    """What all pairs come to; the headline is entries per second, grouped."""
    medians = {name: round(statistics.median(values)) for name, values in series.items()}
    ratios = [
        own / other
        for own, other in zip(series["ours_grouped"], series["peer_grouped"], strict=True)
    ]
    return Result(
        name="audit",
        ours=medians["ours_grouped"],
        peer=medians["peer_grouped"],
        unit=f"durable entries per second, {THREADS} threads",
        ratio=round(statistics.median(ratios), 2),
        aim=f">= {AIM_PER_SECOND} durable entries per second, grouped",
        met=medians["ours_grouped"] >= AIM_PER_SECOND,
        runs=len(ratios),
        spread={"ratio": (round(min(ratios), 2), round(max(ratios), 2))},
        machine=machine(),
        figures={f"{name}_per_second": value for name, value in medians.items()} | figures,
    )
