"""What the pool decides about memory and weights: pure functions over numbers."""

from __future__ import annotations

from collections.abc import Iterable

# The CPU weight of a VM that the ledger says nothing of.
DEFAULT_WEIGHT = 100


def pool_available(physical_mib: int, minimums: Iterable[int]) -> int:
    """Memory that could still be promised: physical memory less every VM's minimum (BAL-07).

    Args:
        physical_mib: the node's memory in MiB.
        minimums: the balloon minimum of every VM, in MiB.

    Returns:
        MiB; negative when more is promised than there is.
    """
    return physical_mib - sum(minimums)
