"""Power that fails in the middle of an installation."""

from __future__ import annotations

import pytest

from lab.node_installed import INSTALLED
from tests.lab_machines.installation import Installation

UNFINISHED = "whose installation did not come to its end"


@pytest.mark.fault(
    "the power is cut while the image installs a node",
    "the next boot says that it found its own unfinished work, starts over and completes it",
)
def test_cut_power_is_made_good_by_the_next_boot(installation: Installation) -> None:
    """ISO-03: cut at points spread over the installation; what comes of it is judged as a node."""
    for said in installation.cuts:
        print(said.rstrip().splitlines()[-1])
        assert INSTALLED not in said
    later = (*installation.cuts[1:], installation.last)
    assert [UNFINISHED in said for said in later] == [True] * len(later)
    assert INSTALLED in installation.last
