"""The tickets this agent has seen: each is good once (HOST-02)."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from ppn.host.agent.policy import check_ticket
from ppn.wire.agent import Ticket

MOST_TICKETS = 1 << 18


def _draw() -> str:
    return secrets.token_hex(16)


class Tickets:
    """The session of this agent and the tickets used in it.

    No used ticket is ever forgotten within its session. When there are too many to remember, a new
    session begins, which refuses all tickets of the old one; controllers hear of it at once, as if
    the agent had been started anew.

    Args:
        node: this node's name.
        most: how many tickets one session remembers.
        draw: makes a new session's name.
    """

    def __init__(
        self, node: str, *, most: int = MOST_TICKETS, draw: Callable[[], str] = _draw
    ) -> None:
        self._node = node
        self._most = most
        self._draw = draw
        self._used: set[str] = set()
        self.session = draw()

    def spend(self, ticket: Ticket | None) -> None:
        """Take a ticket, so that it is never taken again.

        Raises:
            Refusal: not for this node and session, or seen before.
        """
        good = check_ticket(ticket, node=self._node, session=self.session, used=self._used)
        self._used.add(good.nonce)
        if len(self._used) >= self._most:
            self._used.clear()
            self.session = self._draw()
