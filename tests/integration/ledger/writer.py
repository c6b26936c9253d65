"""A process that extends a ledger again and again until it is killed.

Run as: python writer.py LEDGER KEY PREFIX; prints a line for each entry that is durable.
"""

from __future__ import annotations

import itertools
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from ppn.pool import keys, store
from ppn.pool.ledger import Grant

# Longer than a waiting process sleeps, so that two of them take turns.
PAUSE_SECONDS = 0.01


def main(ledger: str, key: str, prefix: str) -> None:
    """Append one grant after another."""
    private = keys.load_private(Path(key))
    for number in itertools.count():
        vm = f"{prefix}{number % 5}"
        store.extend(Path(ledger), private, {vm: Grant(vm, number + 1, 0)}, datetime.now(UTC))
        print(number, flush=True)
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
