"""`ppn` as a tenant uses it, through a real tenant proxy."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ppn.run import Completed, run
from ppn.tenant.model import Amount
from ppn.tenant.store import Store
from tests.integration.host.node import PPN
from tests.integration.tenant_proxy.parts import TenantProxy, provision, recording
from tests.integration.tenant_proxy.recorder import Recorder

CEILING = Amount(memory_mib=600, vcpus=8, disk_gib=10, vms=1)
ORDER = ("vm", "create", "tiny", "--vcpus", "2", "--memory-mib", "256")


@dataclass
class Tenant:
    """A tenant at its own machine, with a token in a file.

    Args:
        proxy: the tenant proxy.
        fleet: the controller behind it.
        token: the file.
    """

    proxy: TenantProxy
    fleet: Recorder
    token: Path

    def ppn(self, *words: str, code: int = 0) -> Completed:
        """Run `ppn`; it must end with this code."""
        given = {
            **os.environ,
            "PPN_PROXY": f"https://{self.proxy.address}:{self.proxy.port}",
            "PPN_TOKEN_FILE": str(self.token),
            "PPN_CA_CERTIFICATE": str(self.proxy.authority.certificate),
        }
        return run([PPN, *words], timeout=60, accept=(code,), env=given)


@pytest.fixture
def tenant(tmp_path: Path) -> Iterator[Tenant]:
    """A tenant who may have one VM."""
    with recording(tmp_path) as (proxy, fleet):
        token = tmp_path / "token"
        token.touch(mode=0o600)
        with Store.open(proxy.store) as store:
            token.write_text(provision(store, "acme", CEILING))
        yield Tenant(proxy, fleet, token)


def test_a_tenant_does_everyday_work_with_the_same_commands(tenant: Tenant) -> None:
    """CLI-01, INV-03: as an operator does, and nothing that is printed names a node."""
    done = tenant.ppn(*ORDER, "--port", "80", "--json")
    vm = json.loads(done.stdout)["vm"]["id"]
    printed = [done.stdout]
    for words in (("list",), ("show", vm), ("stop", vm), ("start", vm), ("attach", vm, "data:1")):
        printed.append(tenant.ppn("vm", *words).stdout)
        assert vm in printed[-1]
    printed += [tenant.ppn("vm", word, vm).stdout for word in ("timeline", "console")]
    printed.append(tenant.ppn("vm", "detach", vm, "data", "--discard").stdout)
    printed.append(tenant.ppn("debug", "vm", vm, code=7).stdout)
    printed.append(tenant.ppn("vm", "destroy", vm).stdout)
    assert tenant.fleet.vms == {}
    assert not any("node-with-a-name" in text or "10.9.2." in text for text in printed)


def test_a_token_that_is_none_has_no_effect(tenant: Tenant) -> None:
    """CLI-01: a code of its own, and the fleet hears nothing."""
    tenant.token.write_text("ppn_ab12_" + "A" * 43)
    assert "token_refused" in tenant.ppn(*ORDER, code=6).stderr
    assert tenant.fleet.seen == []


@pytest.mark.fault("a tenant's ceiling is reached", "the order's error and `ppn debug vm` name it")
def test_a_full_ceiling_is_named(tenant: Tenant) -> None:
    """CLI-04: by the order itself, with the numbers, and afterwards for what is not there."""
    tenant.ppn(*ORDER)
    refused = tenant.ppn(*ORDER, code=3).stderr
    assert "quota_exceeded" in refused and "wanted 1, free 0" in refused
    found = json.loads(tenant.ppn("debug", "vm", "vm-aaaaaaaaaaaaaaaa", "--json", code=7).stdout)
    assert found["causes"][0]["code"] == "quota_exceeded"
