"""`ppn ledger` as a person types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ppn.cli.ledger import ledger_app
from ppn.pool import keys
from ppn.pool.ledger import Grant
from ppn.pool.store import load
from tests.unit.pool.samples import KEY, ledger, lines

PPN = Path(sys.executable).parent / "ppn"


def ppn(folder: Path, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command with a node's files below a folder."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PPN_")}
    return subprocess.run(
        [str(PPN), "ledger", *words],
        input=stdin,
        capture_output=True,
        timeout=60,
        cwd=folder,
        env=environment | {"PPN_ROOT": str(folder / "node"), "COLUMNS": "200"},
        check=False,
    )


def done(folder: Path, *words: str, stdin: bytes = b"") -> str:
    """What a run that must succeed printed."""
    result = ppn(folder, *words, stdin=stdin)
    assert result.returncode == 0, result.stderr
    return result.stdout.decode()


def refused(folder: Path, code: int, *words: str, stdin: bytes = b"") -> str:
    """What a run that must fail printed to standard error."""
    result = ppn(folder, *words, stdin=stdin)
    assert result.returncode == code, (result.stdout, result.stderr)
    assert result.stdout == b""
    return result.stderr.decode()


def node(folder: Path, *, key: bool = True) -> Path:
    """A node's files; the path of its ledger."""
    (folder / "node/etc/ppn").mkdir(parents=True)
    if key:
        pem = keys.public_pem(KEY.public_key())
        (folder / "node/etc/ppn/operator.pub").write_bytes(pem)
    return folder / "node/var/lib/ppn/ledger.jsonl"


OWN = ("--ledger", "ledger.jsonl", "--key", "operator.key")
READ = ("--ledger", "ledger.jsonl", "--trusted", "operator.pub")


def test_from_a_new_key_to_a_node(tmp_path: Path) -> None:
    """LED-01, CPU-06: make a key, grant 400 and 100, change, withdraw, verify, install."""
    printed = done(tmp_path, "keygen", "operator.key", "--public", "operator.pub")
    private = (tmp_path / "operator.key").read_text().splitlines()[1]
    assert private not in printed
    assert "key_exists" in refused(tmp_path, 1, "keygen", "operator.key")
    first = done(tmp_path, "set", "inference", "--weight", "400", "--minimum", "512", *OWN)
    assert first == "inference: weight 400, minimum 512 MiB, signed\n"
    again = done(tmp_path, "set", "inference", "--minimum", "512", *OWN)
    assert again == "inference: weight 400, minimum 512 MiB, already so\n"
    assert "weight 100" in done(tmp_path, "set", "archive", "--minimum", "64", *OWN)
    assert "minimum_missing" in refused(tmp_path, 3, "set", "new", "--weight", "7", *OWN)
    done(tmp_path, "set", "old", "--minimum", "0", *OWN)
    assert done(tmp_path, "withdraw", "old", *OWN) == "old: no grant, signed\n"
    shown = json.loads(done(tmp_path, "show", "--json", *READ))
    assert [(row["vm"], row["weight"], row["minimum_mib"]) for row in shown["grants"]] == [
        ("archive", 100, 64),
        ("inference", 400, 512),
    ]
    assert done(tmp_path, "verify", *READ).endswith(f"4 entries, all sound, head {shown['head']}\n")
    table = done(tmp_path, "show", *READ)
    assert "inference" in table and "old" not in table and shown["head"] in table
    copy = node(tmp_path, key=False)
    (tmp_path / "node/etc/ppn/operator.pub").write_bytes((tmp_path / "operator.pub").read_bytes())
    data = (tmp_path / "ledger.jsonl").read_bytes()
    assert done(tmp_path, "install", stdin=data).startswith("installed: 4 entries")
    assert done(tmp_path, "install", stdin=data).startswith("already in force: 4 entries")
    assert copy.read_bytes() == data


def test_verify_names_the_entry_that_broke(tmp_path: Path) -> None:
    """LED-01: text and JSON, exit code 1."""
    path = node(tmp_path)
    assert "ledger_missing" in refused(tmp_path, 1, "verify")
    path.parent.mkdir(parents=True)
    broken = lines(ledger(9))
    broken[5] = broken[5].replace(b"vm5", b"vm6")
    path.write_bytes(b"".join(broken))
    text = refused(tmp_path, 1, "verify")
    assert text.startswith("ppn: ledger entry 6: ") and "(ledger_bad_signature)" in text
    error = json.loads(refused(tmp_path, 1, "verify", "--json"))["error"]
    assert (error["code"], error["entry"]) == ("ledger_bad_signature", 6)


def test_install_refuses_with_codes(tmp_path: Path) -> None:
    """LED-01: exit 1 for damage, 3 for a ledger that takes entries back; the file is untouched."""
    path = node(tmp_path)
    shown: dict[str, Any] = json.loads(done(tmp_path, "install", "--json", stdin=ledger(5)))
    assert (shown["changed"], shown["entries"], shown["repaired"]) == (True, 5, None)
    assert "ledger_rollback" in refused(tmp_path, 3, "install", stdin=ledger(4))
    assert "ledger_torn" in refused(tmp_path, 1, "install", stdin=ledger(6)[:-1])
    assert "ledger_empty" in refused(tmp_path, 1, "install")
    assert path.read_bytes() == ledger(5)
    path.write_bytes(ledger(5)[:-9])
    result = ppn(tmp_path, "install", stdin=ledger(5))
    assert result.returncode == 0 and b"entry 5" in result.stderr
    assert load(path, KEY.public_key()).latest("vm4") == Grant("vm4", 45, 256)


def test_a_node_without_the_key_takes_nothing(tmp_path: Path) -> None:
    """LED-01: an unsigned or untrusted ledger is never put in force, and the error tells why."""
    path = node(tmp_path, key=False)
    assert "key_missing" in refused(tmp_path, 1, "install", stdin=ledger(1))
    assert not path.exists()


def test_a_loose_key_signs_nothing(tmp_path: Path) -> None:
    """The private key file's mode is checked before it is used."""
    done(tmp_path, "keygen", "operator.key")
    (tmp_path / "operator.key").chmod(0o640)
    assert "key_loose_mode" in refused(tmp_path, 1, "set", "a", "--minimum", "1", *OWN)
    assert not (tmp_path / "ledger.jsonl").exists()


def test_every_command_tells_its_exit_codes() -> None:
    """Help is the manual page."""
    texts = [
        str(command.callback.__doc__)
        for command in ledger_app.registered_commands
        if command.callback
    ]
    assert len(texts) == 6
    assert all("Exit codes: 0 " in text for text in texts)
