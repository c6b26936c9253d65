"""Tenant proxies as processes of their own, and what their stores have in them."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from ppn.audit.batches import read_batches
from ppn.audit.entry import Entry, parse
from ppn.audit.journal import NAME
from ppn.pool.tls import TlsFiles
from ppn.tenant.model import Amount
from ppn.tenant.store import Store
from tests.integration.fleet.edges import free_port
from tests.integration.proxy.parts import Authority, wait_for
from tests.integration.tenant_proxy.recorder import Recorder
from tests.logged import logged

ORDER = {"image": "tiny", "vcpus": 2, "memory_mib": 256}
# What one VM of that order takes.
ONE = Amount(memory_mib=256, vcpus=2, disk_gib=1, vms=1)
ROOMY = Amount(memory_mib=1 << 20, vcpus=1 << 10, disk_gib=1 << 20, vms=1 << 10)


@dataclass
class TenantProxy:
    """A tenant proxy in a process of its own.

    Args:
        folder: takes its files.
        authority: whose certificate it has.
        controllers: addresses.
        controller_port: theirs.
        store: URL of the tenant store; a file in its folder when empty.
        address: it listens on, and asks from.
        settings: beyond what it needs.
    """

    folder: Path
    authority: Authority
    controllers: Sequence[str]
    controller_port: int
    store: str = ""
    address: str = "127.0.3.1"
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.store = self.store or f"sqlite:///{self.folder / 'tenants.db'}"
        self.files: TlsFiles = self.authority.issue("proxy", "tenant-proxy", address=self.address)
        self.log = self.folder / "proxy.log"
        self.audit = self.folder / "audit"
        self.port = 0
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        path = self.folder / "tenant.json"
        settings = {
            "name": "proxy",
            "address": self.address,
            "mesh_range": "10.8.0.0/24",
            "port": self.port or free_port(),
            "controllers": list(self.controllers),
            "controller_port": self.controller_port,
            "nodes": ["127.0.0.1", "127.0.0.2"],
            "store": self.store,
            "audit": str(self.audit),
            "audit_key": str(self.folder / "audit.key"),
            "certificate": str(self.files.certificate),
            "trust": str(self.files.trust),
            "development": True,
            **self.settings,
        }
        path.write_text(json.dumps(settings))
        words = ["-m", "ppn.tenant", "--key", str(self.files.key), "--settings", str(path)]
        before = len(self.lines("started"))
        with self.log.open("ab") as log:
            process = subprocess.Popen([sys.executable, *words], stderr=log, stdout=log)

        def started() -> bool:
            assert process.poll() is None, self.log.read_text()
            return len(self.lines("started")) > before

        try:
            # A machine that is busy with other tests takes its time over the imports.
            wait_for(started, "the tenant proxy", seconds=120)
        except BaseException:
            process.kill()
            process.wait()
            raise
        self.port = int(settings["port"])
        return process

    def start_again(self) -> None:
        """Start it anew with the files it left."""
        self.process = self._start()

    def kill(self) -> None:
        """End it without warning."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(120)

    def end(self) -> int:
        """End it, and return its exit code; requests under way alone have 20 s."""
        self.process.terminate()
        try:
            return self.process.wait(120)
        finally:
            self.process.kill()
            self.process.wait()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What it has logged of one event."""
        return logged(self.log, event=event)

    def client(self, token: str = "", *, source: str = "127.0.0.1") -> httpx.Client:
        """An HTTP client with a token, at an address."""
        trusting = context_of(self.authority)
        transport = httpx.HTTPTransport(
            verify=trusting, local_address=source, limits=httpx.Limits(max_connections=300)
        )
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        base = f"https://{self.address}:{self.port}"
        return httpx.Client(base_url=base, transport=transport, timeout=60, headers=headers)

    def entries(self) -> list[Entry]:
        """Its audit log."""
        return entries_of(self.audit)


def entries_of(folder: Path) -> list[Entry]:
    """Every entry of an audit log."""
    with (folder / NAME).open("rb") as journal:
        return [parse(entry) for batch in read_batches(journal, 0) for entry in batch.entries]


def context_of(authority: Authority) -> ssl.SSLContext:
    """TLS as a customer speaks it: the pool's authority, and no certificate."""
    made = ssl.create_default_context(cafile=str(authority.certificate))
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    return made


def provision(store: Store, name: str, ceiling: Amount = ROOMY) -> str:
    """A tenant, and a token for it."""
    store.create_tenant(name, ceiling, now=datetime.now(UTC))
    return store.issue_token(name, now=datetime.now(UTC)).text


def allocate(store: Store, tenant: str, vm: str, amount: Amount = ONE) -> None:
    """Have a VM in the store that is known to be made."""
    now = datetime.now(UTC)
    store.reserve(tenant, vm, amount, lease_seconds=60, now=now)
    store.settle(vm, now=now)


@contextmanager
def recording(folder: Path, **settings: Any) -> Iterator[tuple[TenantProxy, Recorder]]:
    """A proxy before a recording controller; both end with the block."""
    recorder = Recorder("127.0.3.9")
    try:
        made = TenantProxy(
            folder / "proxy", Authority(folder), [recorder.address], recorder.port, **settings
        )
        try:
            yield made, recorder
        finally:
            made.end()
    finally:
        recorder.close()
