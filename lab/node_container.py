"""Nodes as containers: the image's root under a layer of their own, run by systemd-nspawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab import cgroups
from lab.errors import LabError
from lab.image import Image
from lab.paths import LabPaths
from lab.process import Process, spawn
from lab.topology import LabNode

# The mount lives in a mount namespace that ends with the node, so none can be left behind.
START = """\
mount -t overlay overlay -o "$1" "$2"
shift 2
while [ "$1" != -- ]; do
    mkdir -p "$1"
    echo $$ >"$1/cgroup.procs"
    shift
done
shift
exec "$@"
"""
# Lets the node set its own network's kernel settings, as forwarding needs.
ENVIRONMENT = {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"}


@dataclass(frozen=True)
class Mounts:
    """What an overlay is made of: the image below, the node's own files above."""

    lower: Path
    upper: Path
    work: Path
    root: Path

    def options(self) -> str:
        """The overlay's mount options.

        Raises:
            LabError: a path has a character that mount options cannot carry.
        """
        for path in (self.lower, self.upper, self.work):
            if set(str(path)) & set(",:\\"):
                raise LabError(
                    f"{path} has a comma, a colon or a backslash, which no overlay can be made of",
                    hint="move the lab with PPN_LAB_HOME and the cache with PPN_CACHE",
                )
        return f"lowerdir={self.lower},upperdir={self.upper},workdir={self.work}"


def command(lab: LabPaths, node: LabNode, mounts: Mounts, *, keep_unit: bool) -> list[str]:
    """The command that boots a node as a container.

    Args:
        lab: whose node.
        node: which node.
        mounts: its root.
        keep_unit: whether it stays in the control group it is started in.
    """
    return [
        "systemd-nspawn",
        "--quiet",
        "--boot",
        "--settings=no",
        "--register=no",
        *(["--keep-unit"] if keep_unit else []),
        f"--directory={mounts.root}",
        f"--machine={lab.namespace(node.name)}",
        f"--hostname={node.name}",
        f"--network-namespace-path={lab.namespace_path(node.name)}",
        "--capability=CAP_NET_ADMIN,CAP_NET_RAW",
        "--bind=/dev/net/tun",
        "--console=read-only",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--setenv=SYSTEMD_COLORS=0",
        f"--load-credential=ssh.authorized_keys.root:{lab.ssh_trust}",
    ]


def start(lab: LabPaths, node: LabNode, image: Image) -> Process:
    """Boot a node as a container.

    Args:
        lab: whose node; its network must be there.
        node: which node.
        image: its root.

    Raises:
        LabError: it could not be started.
    """
    paths = lab.node(node.name)
    mounts = Mounts(image.root, paths.upper, paths.work, paths.root)
    for folder in (paths.upper, paths.work, paths.root):
        folder.mkdir(parents=True, exist_ok=True)
    # The top folder's mode is the node's `/`, whatever our umask is.
    paths.upper.chmod(0o755)
    groups = [str(path) for path in cgroups.groups(lab.namespace(node.name))]
    boot = command(lab, node, mounts, keep_unit=not cgroups.systemd_runs())
    private = ["unshare", "--mount", "--propagation", "slave", "sh", "-ec", START, "sh"]
    argv = [*private, mounts.options(), str(mounts.root), *groups, "--", *boot]
    return spawn(argv, log=paths.console_log, record=paths.process, env=ENVIRONMENT)


def clear(lab: LabPaths, node: LabNode) -> None:
    """Remove what a killed container leaves in the machine's run-time folders."""
    machine = lab.namespace(node.name)
    cgroups.remove(machine)
    left = Path("/run/systemd/nspawn/propagate") / machine
    if left.is_dir():
        left.rmdir()
