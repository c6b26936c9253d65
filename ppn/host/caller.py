"""Calls that may never come back, made on a thread of their own and waited for with a deadline."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

# Callers with a call that has not come back; each holds a thread.
MOST_SILENT = 8


class NoAnswer(Exception):
    """A call that did not come back in time, or was not made because an earlier one did not."""


class Caller:
    """Makes calls one after the other on a thread of its own.

    Args:
        deadline: seconds a single call may take.
        errors: what calls may raise; raised again where the call was asked for.

    Raises:
        NoAnswer: so many other callers wait for an answer that one more would do no good.
    """

    _silent_ones = threading.BoundedSemaphore(MOST_SILENT)

    def __init__(self, deadline: float, errors: tuple[type[Exception], ...]) -> None:
        self._deadline = deadline
        self._errors = errors
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.silent = False
        if not self._silent_ones.acquire(blocking=False):
            raise NoAnswer
        self._silent_ones.release()
        threading.Thread(target=self._serve, daemon=True, name="caller").start()

    def call(self, work: Callable[[], Result], seconds: float | None = None) -> Result:
        """The result of a call.

        Args:
            work: the call.
            seconds: it may take; the caller's deadline when None.

        Raises:
            NoAnswer: it did not come back in time.
        """
        answers: queue.SimpleQueue[tuple[Result | None, Exception | None]] = queue.SimpleQueue()

        def attempt() -> None:
            try:
                answers.put((work(), None))
            except self._errors as error:
                answers.put((None, error))

        if self.silent:
            raise NoAnswer
        self._calls.put(attempt)
        try:
            result, error = answers.get(timeout=seconds or self._deadline)
        except queue.Empty as late:
            self.silent = self._silent_ones.acquire(blocking=False)
            raise NoAnswer from late
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # no error means that the work returned it

    def end(self) -> None:
        """Let the thread end, as soon as its last call has come back."""
        self._calls.put(None)

    def _serve(self) -> None:
        while (work := self._calls.get()) is not None:
            work()
        if self.silent:
            self._silent_ones.release()
