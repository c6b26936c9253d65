"""`ppn tenant` as a person types it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ppn.audit.entry import Entry, parse
from ppn.audit.journal import NAME
from ppn.tenant.settings import TenantSettings
from ppn.tenant.store import Store
from tests.postgres import Cluster
from tests.unit.tenant.samples import LEASE_SECONDS, NOW, SMALL

PPN = Path(sys.executable).parent / "ppn"
NOBODY = 65534


class Node:
    """A tenant proxy's node: a folder with its settings and its files.

    Args:
        folder: where.
        store: the URL of its store.
    """

    def __init__(self, folder: Path, store: str) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir()
        settings = TenantSettings.model_validate(
            {
                "name": "relay",
                "address": "10.8.0.1",
                "mesh_range": "10.8.0.0/24",
                "controllers": ["10.8.0.2"],
                "store": store,
                "audit": self.state / "audit",
                "audit_key": self.state / "audit.key",
            }
        )
        (folder / "tenant.json").write_text(settings.model_dump_json())

    def ppn(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the command; it must end with this code."""
        found = subprocess.run(
            [str(PPN), "tenant", *words],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.folder,
            env=os.environ | {"PPN_TENANT_SETTINGS": "tenant.json", "COLUMNS": "200"},
            check=False,
        )
        assert found.returncode == code, (found.stdout, found.stderr)
        return found

    def json(self, *words: str) -> Any:
        """What it prints with `--json`."""
        return json.loads(self.ppn(*words, "--json").stdout)

    def refused(self, *words: str, code: int = 3) -> str:
        """What it says when it does not do it."""
        found = self.ppn(*words, code=code)
        assert found.stdout == ""
        return found.stderr


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node with a store, in SQLite."""
    made = Node(tmp_path, f"sqlite:///{tmp_path}/state/tenants.db")
    made.ppn("init")
    return made


def test_from_provisioning_to_the_end(tmp_path: Path, postgres: Cluster) -> None:
    """TEN-03, TEN-07: a ceiling or no tenant; the token once; used/limit shown; revoked."""
    url = postgres.database()
    node = Node(tmp_path, url)
    node.ppn("init")
    assert "ceiling_missing" in node.refused("create", "acme", "--vms", "5")
    made = node.json("create", "acme", "--default-ceiling", "--memory-mib", "4096")
    assert made["tenant"]["ceiling"] == {
        "memory_mib": 4096,
        "vcpus": 8,
        "disk_gib": 100,
        "vms": 5,
    }
    secret = made["token"]["secret"]
    with Store.open(url) as store:
        token = store.authenticate(secret, now=datetime.now(UTC))
        assert (token.id, token.tenant) == (made["token"]["id"], "acme")
        store.reserve("acme", "vm-a", SMALL, lease_seconds=LEASE_SECONDS, now=NOW)
    shown = node.json("show", "acme")
    assert (shown["used"]["memory_mib"], shown["free"]["vms"]) == (1024, 4)
    assert (shown["vms"][0]["id"], shown["vms"][0]["state"]) == ("vm-a", "reserved")
    assert secret not in json.dumps(shown)
    text = node.ppn("list").stdout
    assert "1024/4096" in text
    assert "1/5" in text
    assert node.json("set", "acme", "--vms", "9")["ceiling"]["vms"] == 9
    assert "--memory-mib" in node.refused("set", "acme", code=2)
    assert "tenant_has_vms" in node.refused("remove", "acme")
    assert "revoked" in node.ppn("token", "revoke", token.id).stdout
    assert node.json("token", "list", "acme")["tokens"][0]["revoked"] is not None


def test_every_step_stands_in_the_audit_log(node: Node) -> None:
    """TEN-10: one intent and one outcome for each change, a refused one too; no secret in it."""
    made = node.json("create", "acme", "--default-ceiling")
    node.refused("create", "acme", "--default-ceiling")
    assert "tenant_name_invalid" in node.refused("create", "a\x1b[31m\n", "--default-ceiling")
    # The whole token by mistake: it is not repeated, and not written down.
    said = node.refused("token", "revoke", made["token"]["secret"])
    assert "token_id_invalid" in said
    assert made["token"]["secret"] not in said
    node.ppn("token", "revoke", made["token"]["id"])
    found = [
        (entry.operation, entry.outcome, entry.code, entry.of, entry.tenant)
        for entry in audited(node.state)
    ]
    assert found == [
        ("tenant_create", "allowed", "", None, "acme"),
        ("tenant_create", "done", "", 0, "acme"),
        ("token_issue", "allowed", "", None, "acme"),
        ("token_issue", "done", "", 2, "acme"),
        ("tenant_create", "allowed", "", None, "acme"),
        ("tenant_create", "failed", "tenant_exists", 4, "acme"),
        ("tenant_create", "refused", "tenant_name_invalid", None, "a\x1b[31m\n"),
        ("token_revoke", "refused", "token_id_invalid", None, ""),
        ("token_revoke", "allowed", "", None, ""),
        ("token_revoke", "done", "", 8, "acme"),
    ]
    secret = made["token"]["secret"].split("_", 2)[2].encode()
    for path in node.folder.rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes(), path


def test_nothing_is_changed_without_an_audit_log(node: Node) -> None:
    """TEN-10: where the log cannot be written, no tenant and no token is made."""
    (node.state / "audit").write_text("in the way")
    assert "audit_unavailable" in node.refused("create", "acme", "--default-ceiling", code=5)
    assert node.json("list") == {"tenants": []}


def test_a_token_file_is_its_owners_alone_and_never_replaced(node: Node) -> None:
    """TEN-03: and nothing is left of it when no token was issued."""
    path = node.folder / "acme.token"
    unknown = ("token", "issue", "acme", "--token-file", str(path))
    assert "tenant_unknown" in node.refused(*unknown, code=4)
    assert not path.exists()
    printed = node.ppn("create", "acme", "--default-ceiling", "--token-file", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert text.strip() not in printed.stdout + printed.stderr
    with Store.open(f"sqlite:///{node.state}/tenants.db") as store:
        assert store.authenticate(text.strip(), now=datetime.now(UTC)).tenant == "acme"
    words = ("token", "issue", "--operator", "--days", "7", "--token-file", str(path))
    assert "token_file_unusable" in node.refused(*words, code=1)
    assert path.read_text() == text
    issued = node.json("token", "issue", "--operator", "--days", "7")
    assert (issued["scope"], issued["tenant"]) == ("operator", None)
    assert issued["expires"] is not None


def test_a_store_can_be_read_from_elsewhere(node: Node) -> None:
    """Reading needs the URL alone; changes need the proxy's node, where the audit log is."""
    node.ppn("create", "acme", "--default-ceiling")
    (node.folder / "tenant.json").unlink()
    url = f"sqlite:///{node.state}/tenants.db"
    assert "acme" in node.ppn("list", "--store", url).stdout
    words = ("create", "globex", "--default-ceiling", "--store", url)
    assert "settings_damaged" in node.refused(*words, code=1)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
def test_what_root_makes_belongs_to_the_proxy() -> None:
    """Else the service, which is not root, could write neither store nor audit log any more."""
    with tempfile.TemporaryDirectory(prefix="ppn-tenant-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # pytest's own folders let nobody else through
        node = Node(folder, f"sqlite:///{folder}/state/tenants.db")
        os.chown(node.state, NOBODY, NOBODY)
        node.ppn("init")
        node.ppn("create", "acme", "--default-ceiling", "--token-file", "acme.token")
        made = list(node.state.rglob("*"))
        assert len(made) >= 3
        assert {path.stat().st_uid for path in made} == {NOBODY}
        assert (folder / "acme.token").stat().st_uid == 0


def audited(state: Path) -> list[Entry]:
    """The entries of an audit log."""
    lines = (state / "audit" / NAME).read_bytes().splitlines()
    return [parse(line) for line in lines if line.startswith(b"{")]
