"""Many customers' requests at once: `python -m tests.integration.tenant_store.crowd URL NAME N`.

Prints a line when it is ready, begins at a line on its input, and prints what became of each.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from ppn.errors import PpnError
from ppn.tenant.store import Store
from tests.integration.tenant_store.worker import now
from tests.unit.tenant.samples import SMALL


def main(url: str, name: str, number: int) -> None:
    """So many reservations at the same moment, each for a VM of its own."""
    together = Barrier(number)
    with Store.open(url) as store, ThreadPoolExecutor(number) as threads:

        def ask(index: int) -> str:
            together.wait()
            try:
                store.reserve("acme", f"vm-{name}-{index}", SMALL, lease_seconds=60, now=now())
            except PpnError as error:
                return error.code
            return "made"

        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps(Counter(threads.map(ask, range(number)))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
