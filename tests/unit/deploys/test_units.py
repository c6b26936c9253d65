"""What every unit of a service says."""

from __future__ import annotations

import pytest

from deploys.units import unit_text


@pytest.mark.parametrize("name", ["ppn-agent", "ppn-fleet", "ppn-node-proxy", "ppn-path-keeper"])
def test_a_service_is_never_given_up(name: str) -> None:
    """A late interface, a killed libvirt or five kills in a row cost no more than the time."""
    unit, _, service = unit_text(f"{name}.service").partition("[Service]")
    assert "StartLimitIntervalSec=0" in unit and "Restart=always" in service
    # A start that needs another unit is not tried again when that one is late.
    assert "Requires=" not in unit
