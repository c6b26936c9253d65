"""Media with site settings for the machine under test: sound ones, and others."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from lab.medium import write_site
from ppn import sshsig
from ppn.installer.signature import NAMESPACE

SETTINGS = json.dumps(
    {
        "version": 1,
        "nodes": [{"name": "n1", "match": {"default": True}}],
        "ssh_ca_keys": [f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{'A' * 43}"],
    }
)


def make_sites(folder: Path, site_key: Path) -> dict[str, Path]:
    """Media by the code they are refused with; the one of `sound` is not.

    Args:
        folder: takes them.
        site_key: the private key that the image trusts.
    """
    theirs = folder / "somebody"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", theirs], check=True, timeout=60
    )
    sound = sshsig.sign(site_key, SETTINGS, NAMESPACE)
    contents = {
        "sound": (SETTINGS, sound),
        "settings_altered": (SETTINGS.replace('"n1"', '"n2"'), sound),
        "settings_unsigned": (SETTINGS, None),
        "settings_signer_unknown": (SETTINGS, sshsig.sign(theirs, SETTINGS, NAMESPACE)),
    }
    for name, (settings, signature) in contents.items():
        write_site(folder / f"{name}.iso", settings, signature)
    return {name: folder / f"{name}.iso" for name in contents}
