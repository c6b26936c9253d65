"""A real Debian guest with cloud-init takes from the seed what the spec says."""

from __future__ import annotations

from lab import guest
from tests.integration.host.node import Node, wait_for

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKm1vT4YyWb0mSxSxxKoFpE0Zn0iqcvCAZ8vVxTkQYqd admin"
REPORT = "for f in /root /home/*; do sed s/^/ppn-key:/ $f/.ssh/authorized_keys; done"


def test_hostname_and_key_come_from_the_seed(node: Node) -> None:
    """HOST-03: cloud-init in the guest finds the seed and does what it says."""
    if not node.paths.image("debian").exists():
        node.paths.image("debian").symlink_to(guest.cached_debian())
    # Said again and again: the kernel and systemd may write into the midst of a line.
    report = f"for _ in $(seq 60); do echo ppn-host:$(hostname); {REPORT}; sleep 2; done"
    node.apply(
        name="debian",
        image="debian",
        vcpus=2,
        memory_mib=768,
        disk_gib=4,
        hostname="seeded-name",
        ssh_keys=[KEY],
        user_data={"runcmd": [["sh", "-c", f"{{ {report}; }} > /dev/ttyS0 2>&1"]]},
    )
    wait_for("cloud-init's report", lambda: "ppn-host:" in node.serial("debian"), seconds=900)
    wait_for("the key", lambda: f"ppn-key:{KEY}" in node.serial("debian"), seconds=900)
    wait_for("its name", lambda: "ppn-host:seeded-name" in node.serial("debian"), seconds=900)
