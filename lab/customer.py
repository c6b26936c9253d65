"""The lab's customer: a machine on the lab's internet with a WireGuard tunnel and nothing else."""

from __future__ import annotations

from lab import ssh, wiring
from lab.errors import LabError
from lab.paths import LabPaths
from lab.topology import CUSTOMER
from ppn.durable import write_atomic
from ppn.run import run

# The name in the inventory's `tenant_peers`, and the node its tunnel ends at.
PEER = "acme-desk"
DOOR = "relay"
INTERFACE = "ppn0"
SECONDS = 60
# wg-quick and wireguard-go have fixed places for configuration, key and socket.
JOIN = """set -e
mount -t tmpfs tmpfs /run
mount --bind "$1" /etc/wireguard
exec wg-quick up "$2" """


def make_key(lab: LabPaths) -> None:
    """Make the customer's WireGuard key, unless it is there."""
    if lab.customer_public_key.exists():
        return
    lab.customer.mkdir(mode=0o700, exist_ok=True)
    private = run(["wg", "genkey"], timeout=SECONDS).stdout
    public = run(["wg", "pubkey"], input=private, timeout=SECONDS).stdout
    write_atomic(lab.customer / f"{INTERFACE}.key", private.encode(), mode=0o600)
    write_atomic(lab.customer_public_key, public.encode())


def join(lab: LabPaths) -> None:
    """Bring the customer's tunnel up as the pool's operator hands it out now.

    Args:
        lab: a lab that is a pool.

    Raises:
        LabError: the pool has no such customer yet.
    """
    words = ["ppn", "mesh", "customer", PEER]
    done = run(ssh.command(lab, DOOR, words), timeout=SECONDS, accept=range(256))
    if done.returncode != 0:
        raise LabError(
            f"{DOOR} knows no customer {PEER}: {done.stderr.strip()}",
            code="no_customer",
            hint="turn the nodes into a pool first: scripts/lab converge",
        )
    conf = lab.customer / f"{INTERFACE}.conf"
    present = INTERFACE in wiring.link_names(lab, CUSTOMER)
    if present and conf.exists() and conf.read_text() == done.stdout:
        return
    if present:
        wiring.ip(lab, CUSTOMER, ["link", "delete", INTERFACE])
    write_atomic(conf, done.stdout.encode(), mode=0o600)
    argv = ["unshare", "--mount", "sh", "-c", JOIN, "ppn-customer", str(lab.customer), INTERFACE]
    run(wiring.inside(lab, CUSTOMER, argv), timeout=SECONDS)
