"""The path keeper's unit: unprivileged, hardened, and with no more power than its node needs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from deploys.mesh import keeper_unit, needed_packages


@pytest.mark.parametrize("kernel", [True, False])
def test_systemd_rates_the_unit_ok(kernel: bool, tmp_path: Path) -> None:
    (file,) = keeper_unit("ppn0", kernel).values()
    unit = tmp_path / "ppn-path-keeper.service"
    unit.write_text(file.content)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = re.search(r"exposure level for \S+: ([0-9.]+) (\w+)", done.stdout)
    assert found and found[2] == "OK", done.stdout


def test_more_power_only_where_wireguard_is_a_program() -> None:
    (kernel,) = keeper_unit("ppn0", True).values()
    (program,) = keeper_unit("mesh1", False).values()
    assert "CapabilityBoundingSet=CAP_NET_ADMIN\n" in kernel.content
    assert "CapabilityBoundingSet=CAP_NET_ADMIN CAP_DAC_OVERRIDE\n" in program.content
    assert "Wants=wg-quick@mesh1.service" in program.content
    assert "User=ppn-mesh" in kernel.content


def test_wireguard_go_is_installed_where_the_kernel_has_no_wireguard() -> None:
    assert "wireguard-go" not in needed_packages(True)
    assert "wireguard-go" in needed_packages(False)
