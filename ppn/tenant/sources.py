"""From where whose tokens are good: a stolen one is of no use at another customer's machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ppn.tenant.model import Token


@dataclass(frozen=True)
class Sources:
    """The mesh addresses that requests may come from.

    Args:
        nodes: the pool's own, where operators are: every token is good there.
        peers: of each customer's machine, its tenant.
    """

    nodes: frozenset[str]
    peers: Mapping[str, str]

    def take(self, source: str, token: Token) -> bool:
        """Whether a token is good from an address; an operator's is not at a customer's."""
        if source in self.nodes:
            return True
        return token.tenant is not None and self.peers.get(source) == token.tenant
