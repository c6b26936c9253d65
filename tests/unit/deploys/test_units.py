"""What every unit of a service says."""

from __future__ import annotations

import pytest

from deploys.units import unit_text

SERVICES = [
    "ppn-agent",
    "ppn-fleet",
    "ppn-node-proxy",
    "ppn-path-keeper",
    "ppn-tenant",
    "ppn-witness",
]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_never_given_up(name: str) -> None:
    """A late interface, a killed libvirt or five kills in a row cost no more than the time."""
    unit, _, service = unit_text(f"{name}.service").partition("[Service]")
    assert "StartLimitIntervalSec=0" in unit and "Restart=always" in service
    # A start that needs another unit is not tried again when that one is late.
    assert "Requires=" not in unit


@pytest.mark.parametrize("name", SERVICES)
def test_a_slow_start_is_waited_for(name: str) -> None:
    """systemd's own 90 s end a start on a busy emulated machine, and the next start likewise."""
    assert "\nTimeoutStartSec=300\n" in unit_text(f"{name}.service")
