"""What lets a node's services speak TLS: its own key, the pool's trust, a certificate."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from operations import certificates as tls
from operations import packages
from ppn.host.moving.vouching import RECEIVER
from ppn.host.proxy.policy import HYPERVISOR
from ppn.inventory import Pool
from ppn.pool.tls import AGENT_STEM

PACKAGES = ["openssl"]


@deploy("Certificates")
def certificates(pool: Pool) -> None:
    """Give a node its certificates; services take over changed ones by themselves.

    Args:
        pool: the sound nodes of the inventory.
    """
    data = host.data
    packages.installed(name="Packages for keys", packages=PACKAGES)
    tls.key(name="TLS key")
    # On every node before any certificate: an authority is trusted before it signs.
    tls.trusted(
        name="Trusted authorities",
        bundle=data.get("ca_trust", data.ca_certificate),
        certificate=data.ca_certificate,
    )
    tls.signed(name="Certificate", pool=pool, key=data.ca_key, certificate=data.ca_certificate)
    if HYPERVISOR in data.roles:
        tls.key(name="Key of the host agent", stem=AGENT_STEM)
        tls.signed(
            name="Certificate of the host agent",
            pool=pool,
            key=data.ca_key,
            certificate=data.ca_certificate,
            stem=AGENT_STEM,
            roles=[RECEIVER],
        )
