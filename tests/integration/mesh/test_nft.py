"""Rulesets and node scripts, judged by the programs they are for."""

from __future__ import annotations

import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st

from ppn.inventory import Pool
from ppn.mesh.firewall import ruleset
from tests.integration.mesh.namespaces import SERVICES
from tests.unit.mesh.pools import pools


@given(st.one_of(pools(), pools(customers=True)))
@settings(max_examples=15, deadline=None)
def test_nft_accepts_the_ruleset_of_any_pool(pool: Pool) -> None:
    """MESH-01: whatever the inventory, the rules can be loaded."""
    texts = [ruleset(pool, node, SERVICES) for node in pool.nodes]
    done = subprocess.run(
        ["unshare", "-n", "nft", "-c", "-f", "-"],
        input="\n".join(texts),
        text=True,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
