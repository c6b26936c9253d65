"""Certificate operations: change, no change, absent, unreadable; with the scripts nodes run."""

from __future__ import annotations

import base64
import json
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from pyinfra.api.exceptions import FactProcessError

from facts.certificates import SCRIPT, CertificateState, NodeCertificate, parse
from facts.files import FileStatus, Statuses
from operations import certificates
from operations.certificates import MAKE_KEY
from operations.files import File
from ppn.pool import keys
from ppn.pool.certificates import (
    Subject,
    authority_certificate,
    bundle_from_pem,
    pem,
    sign,
    subject_of,
)
from ppn.pool.certificates import load_authority as authority_of
from ppn.pool.tls import AGENT_CERTIFICATE, AGENT_KEY, AGENT_STEM, NODE_CERTIFICATE, NODE_TRUST
from ppn.run import run
from tests.unit.mesh.pools import SMALL, node, pool
from tests.unit.operations.yielded import refusal, texts, yielded

NODE = node("node", 7, "d")
POOL = pool(*SMALL.nodes, NODE)
SUBJECT = Subject("node", ip_address(NODE.address), NODE.roles)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two authorities and a node's key, made as on a node."""
    found = tmp_path_factory.mktemp("tls")
    for name in ("ca", "other"):
        keys.generate(found / f"{name}.key", found / f"{name}.key.pub")
        private = keys.load_private(found / f"{name}.key")
        made = authority_certificate(private, "ppn", datetime.now(UTC) - timedelta(days=900))
        (found / f"{name}.crt").write_text(pem([made]))
    run(["sh", "-c", MAKE_KEY, "ppn-key", found / "tls" / "node.key"], timeout=30)
    return found


def read(folder: Path) -> list[str]:
    """What the fact's script prints in a node's folder, with the paths of a node."""
    words = [folder / "tls" / "node.key", folder / "tls" / "node.crt"]
    printed = run(["sh", "-c", SCRIPT, "ppn-certificate", *words], timeout=30).stdout
    return printed.replace(str(words[1]), NODE_CERTIFICATE).splitlines()


@pytest.fixture
def keyed(folder: Path) -> CertificateState:
    """A node with a key and no certificate."""
    (folder / "tls" / "node.crt").unlink(missing_ok=True)
    return parse(read(folder))


def certified(folder: Path, state: CertificateState, *, by: str = "ca", days: int = 0) -> Any:
    """A node with a certificate, signed some days ago."""
    authority = authority_of(folder / f"{by}.key", folder / f"{by}.crt")
    if state.request is None:
        raise ValueError("no request")
    made = sign(authority, state.request, SUBJECT, datetime.now(UTC) - timedelta(days=days))
    status = replace(File(pem([made])).status, owner="root", group="root")
    return replace(state, certificate=made, file=status)


def signed(folder: Path, state: CertificateState | None, by: str = "ca") -> Any:
    return yielded(
        certificates.signed,
        {NodeCertificate: state},
        pool=POOL,
        key=str(folder / f"{by}.key"),
        certificate=str(folder / f"{by}.crt"),
    )


def test_key_is_made_on_the_node_for_root_alone(folder: Path) -> None:
    key = folder / "tls" / "node.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o755
    assert [path.name for path in key.parent.iterdir() if path.name != "node.crt"] == ["node.key"]


def test_key_is_never_replaced(folder: Path) -> None:
    key = folder / "tls" / "node.key"
    before = key.read_bytes()
    done = run(["sh", "-c", MAKE_KEY, "ppn-key", key], timeout=30, accept=(1,))
    assert (done.returncode, key.read_bytes()) == (1, before)


def test_the_fact_prints_no_private_key(folder: Path, keyed: CertificateState) -> None:
    """The private key never leaves the node, not even to whoever reads facts."""
    private = (folder / "tls" / "node.key").read_text().splitlines()[1]
    printed = "\n".join(read(folder))
    words = [base64.b64decode(word) for word in printed.split() if len(word) > 100]
    assert keyed.request is not None and words
    assert private not in printed
    assert all(base64.b64decode(private)[-32:] not in word for word in words)


def test_fact_of_a_blank_node(tmp_path: Path) -> None:
    assert parse(read(tmp_path)) == CertificateState(None, None, None, None, None)


def test_fact_reads_a_certificate(folder: Path, keyed: CertificateState) -> None:
    wanted = certified(folder, keyed)
    (folder / "tls" / "node.crt").write_text(pem([wanted.certificate]))
    (folder / "tls" / "node.crt").chmod(0o644)
    found = parse(read(folder))
    assert (found.certificate, found.file) == (wanted.certificate, wanted.file)


def test_a_damaged_certificate_is_as_none(folder: Path, keyed: CertificateState) -> None:
    (folder / "tls" / "node.crt").write_text("half a certif")
    found = parse(read(folder))
    assert found.certificate is None and found.file is not None
    (command,), _ = signed(folder, found)
    assert "_stdin" in command.connector_arguments


def test_a_key_that_is_none_is_no_state(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "node.key").write_text("nothing")
    with pytest.raises(FactProcessError, match="no signing request"):
        parse(read(tmp_path))


def test_output_that_was_cut_off_is_no_state(folder: Path, keyed: CertificateState) -> None:
    lines = read(folder)
    for cut in range(len(lines)):
        with pytest.raises(FactProcessError):
            parse(lines[:cut])


def test_first_certificate_is_signed_and_only_it_travels(
    folder: Path, keyed: CertificateState
) -> None:
    (command,), host = signed(folder, keyed)
    (file,) = json.loads(command.connector_arguments["_stdin"])
    assert (file["path"], file["mode"], file["owner"]) == (NODE_CERTIFICATE, "0644", "root")
    (made,) = bundle_from_pem(file["content"].encode())
    assert keyed.request is not None
    assert made.public_key() == keyed.request.public_key()
    assert host.log_lines == ["a certificate is signed for node: it has none"]


def test_second_run_has_no_command_and_needs_no_key(
    folder: Path, keyed: CertificateState, tmp_path: Path
) -> None:
    commands, host = yielded(
        certificates.signed,
        {NodeCertificate: certified(folder, keyed)},
        pool=POOL,
        key=str(tmp_path / "not here"),
        certificate=str(folder / "ca.crt"),
    )
    assert (commands, host.noops) == ([], [f"{NODE_CERTIFICATE} is good"])


def test_the_agents_certificate_is_for_one_thing_alone(
    folder: Path, keyed: CertificateState
) -> None:
    """INV-04: a node's own roles are not in it, nor is it where services look for theirs."""
    commands, _ = yielded(
        certificates.signed,
        {NodeCertificate: keyed},
        pool=POOL,
        key=str(folder / "ca.key"),
        certificate=str(folder / "ca.crt"),
        stem=AGENT_STEM,
        roles=["vm-receiver"],
    )
    (file,) = json.loads(commands[0].connector_arguments["_stdin"])
    (made,) = bundle_from_pem(file["content"].encode())
    assert file["path"] == AGENT_CERTIFICATE
    assert subject_of(made) == Subject("node", SUBJECT.address, frozenset({"vm-receiver"}))
    blank = CertificateState(None, None, None, None, None)
    (text,) = texts(yielded(certificates.key, {NodeCertificate: blank}, stem=AGENT_STEM)[0])
    assert text.endswith(f"ppn-key {AGENT_KEY}")


@pytest.mark.parametrize(("days", "count"), [(200, 0), (270, 1), (500, 1)])
def test_renewed_when_less_than_a_third_is_left(
    folder: Path, keyed: CertificateState, days: int, count: int
) -> None:
    assert len(signed(folder, certified(folder, keyed, days=days))[0]) == count


def test_another_authority_signs_anew(folder: Path, keyed: CertificateState) -> None:
    (command,), _ = signed(folder, certified(folder, keyed), by="other")
    (file,) = json.loads(command.connector_arguments["_stdin"])
    (made,) = bundle_from_pem(file["content"].encode())
    other = x509.load_pem_x509_certificate((folder / "other.crt").read_bytes())
    made.verify_directly_issued_by(other)


def test_a_loose_mode_is_mended_and_nothing_signed(folder: Path, keyed: CertificateState) -> None:
    good = certified(folder, keyed)
    loose = replace(good, file=replace(good.file, mode="0666"))
    (command,), _ = signed(folder, loose)
    (file,) = json.loads(command.connector_arguments["_stdin"])
    assert file["content"] == pem([good.certificate])


def test_a_missing_authority_is_refused(folder: Path, keyed: CertificateState) -> None:
    assert "(certificate_missing)" in refusal(signed(folder, keyed, by="none")[0])
    (folder / "lone.crt").write_text((folder / "ca.crt").read_text())
    assert "(key_missing)" in refusal(signed(folder, keyed, by="lone")[0])


@pytest.mark.parametrize("operation", [certificates.key, certificates.signed])
def test_unreadable_state_is_refused(operation: Any, folder: Path) -> None:
    arguments = {"pool": POOL, "key": "", "certificate": ""}
    found = arguments if operation is certificates.signed else {}
    commands, _ = yielded(operation, {NodeCertificate: None}, **found)
    assert "refusing to act on an unknown state" in refusal(commands)


def test_a_dry_run_announces_the_certificate_of_a_key_to_come(folder: Path) -> None:
    """The preparation announces a change; the run makes the key before it comes here."""
    blank = CertificateState(None, None, None, None, None)
    assert len(signed(folder, blank)[0]) == 1
    (text,) = texts(yielded(certificates.key, {NodeCertificate: blank})[0])
    assert "openssl genpkey" in text and "umask 077" in text


def test_key_that_is_there_is_left_alone(keyed: CertificateState) -> None:
    sound = replace(keyed, key_mode="0600", key_owner="root:root")
    assert yielded(certificates.key, {NodeCertificate: sound})[0] == []
    loose = replace(sound, key_mode="0640")
    assert texts(yielded(certificates.key, {NodeCertificate: loose})[0])[1].startswith("chmod 0600")


def trusted(folder: Path, bundle: str, now: FileStatus | None) -> Any:
    return yielded(
        certificates.trusted,
        {Statuses: {NODE_TRUST: now}},
        bundle=str(folder / bundle),
        certificate=str(folder / "ca.crt"),
    )


def test_trust_is_installed_once(folder: Path) -> None:
    (command,), _ = trusted(folder, "ca.crt", None)
    (file,) = json.loads(command.connector_arguments["_stdin"])
    assert (file["path"], file["mode"]) == (NODE_TRUST, "0644")
    assert trusted(folder, "ca.crt", File(file["content"]).status)[0] == []


def test_two_authorities_are_trusted_while_one_replaces_the_other(folder: Path) -> None:
    both = (folder / "ca.crt").read_text() + (folder / "other.crt").read_text()
    (folder / "both.crt").write_text(both)
    (command,), _ = trusted(folder, "both.crt", None)
    (file,) = json.loads(command.connector_arguments["_stdin"])
    assert file["content"] == both


def test_an_authority_that_signs_untrusted_is_refused(folder: Path) -> None:
    assert "(authority_untrusted)" in refusal(trusted(folder, "other.crt", None)[0])


def test_only_authorities_are_trusted(folder: Path, keyed: CertificateState) -> None:
    leaf = pem([certified(folder, keyed).certificate])
    (folder / "leaf.crt").write_text((folder / "ca.crt").read_text() + leaf)
    assert "(authority_wrong_kind)" in refusal(trusted(folder, "leaf.crt", None)[0])


def test_unreadable_trust_is_refused(folder: Path) -> None:
    arguments = {"bundle": str(folder / "ca.crt"), "certificate": str(folder / "ca.crt")}
    commands, _ = yielded(certificates.trusted, {Statuses: None}, **arguments)
    assert "refusing to act on an unknown state" in refusal(commands)
