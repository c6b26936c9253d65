"""Who is refused before anything is changed, for what the node itself says."""

from __future__ import annotations

from ipaddress import ip_network
from types import SimpleNamespace

import pytest

from deploys import admission
from facts.software import Platform
from tests.unit.mesh.pools import SMALL


@pytest.mark.parametrize(
    ("caller", "networks", "locked_out"),
    [
        ("203.0.113.7", None, False),
        ("203.0.113.7", ("203.0.113.0/28",), False),
        ("203.0.113.77", ("203.0.113.0/28", "2001:db8::/64"), True),
        ("2001:db8::7", ("203.0.113.0/28", "2001:db8::/64"), False),
        ("2001:db8:1::7", ("203.0.113.0/28",), True),
        # Through the mesh one always gets in; and what cannot be told is no reason.
        ("10.8.0.3", (), False),
        ("none", (), False),
    ],
)
def test_nobody_locks_themselves_out(
    monkeypatch: pytest.MonkeyPatch, caller: str, networks: tuple[str, ...] | None, locked_out: bool
) -> None:
    """MESH-03: `ssh_from` closes SSH to others, never to who declares it."""
    monkeypatch.setattr(admission, "host", SimpleNamespace(name="server"))
    found = None if networks is None else tuple(map(ip_network, networks))
    pool = type(SMALL)(SMALL.range, "ppn0", 51820, SMALL.nodes, ssh_from=found)
    platform = Platform("debian", "13", "x86_64", "6.12", caller)
    problems = list(admission.caller_problems(platform, pool))
    assert bool(problems) is locked_out
    assert all("ssh_from_locks_out" in text and caller in text for text in problems)
