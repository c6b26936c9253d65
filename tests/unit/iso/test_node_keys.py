"""The programs of a node's root that make its keys, once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from iso.root import node_recipe


def make_host_key(folder: Path) -> tuple[str, str]:
    """Run the node's program on a folder in place of `/etc/ssh`: private key, and what it said."""
    tree = node_recipe().tree
    assert tree is not None
    script = (tree / "usr/local/sbin/node-host-key").read_text()
    for path, place in (("/etc/ssh", folder), ("/dev/console", folder / "console")):
        assert path in script
        script = script.replace(path, str(place))
    subprocess.run(["sh", "-c", script], check=True, timeout=30)
    key = folder / "ssh_host_ed25519_key"
    assert key.stat().st_mode & 0o777 == 0o600
    words = (folder / "console").read_text().split()
    asked = ["ssh-keygen", "-y", "-f", str(key)]
    public = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=30).stdout
    assert words[:3] == ["node-host-key", *public.split()[:2]]
    assert key.with_suffix(".pub").read_text().split()[:2] == public.split()[:2]
    return key.read_text(), words[2]


def test_a_host_key_is_made_once(tmp_path: Path) -> None:
    first = make_host_key(tmp_path)
    assert make_host_key(tmp_path) == first
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"ssh_host_ed25519_key", "ssh_host_ed25519_key.pub", "console"}


@pytest.mark.parametrize("lost", ["", None])
def test_a_lost_public_half_does_not_cost_the_private_one(tmp_path: Path, lost: str | None) -> None:
    """The host key is what everybody knows the node by."""
    first = make_host_key(tmp_path)
    public = tmp_path / "ssh_host_ed25519_key.pub"
    public.unlink()
    if lost is not None:
        public.write_text(lost)
    assert make_host_key(tmp_path) == first


def test_an_empty_private_key_is_made_anew(tmp_path: Path) -> None:
    """As a power cut leaves one that was written and not flushed: sshd would start with none."""
    first = make_host_key(tmp_path)
    (tmp_path / "ssh_host_ed25519_key").write_text("")
    assert make_host_key(tmp_path) != first
