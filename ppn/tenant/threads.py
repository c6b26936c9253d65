"""Calls that block, on threads of their own: a slow database never stops the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

# Twice the store's connections: while one call waits for an answer, another makes its question.
WORKERS = 16

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A bounded number of threads for the store."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="tenant-proxy")

    async def call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do some work on a thread, and wait for it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, partial(work, *args, **kwargs))

    def close(self) -> None:
        """Wait for what is under way, and take nothing more."""
        self._pool.shutdown()
