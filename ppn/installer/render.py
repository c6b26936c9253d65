"""The files that make a node out of the copied root, as texts of its settings."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePosixPath

from ppn.installer.mark import Mark
from ppn.installer.settings import Link, Mesh, Node, NodeSettings, Relay
from ppn.inventory.pool import PROBE_RANGE
from ppn.mesh.peers import Interface, Kind, Peer
from ppn.mesh.render import conf_path, wg_quick

ESP_MIB = 512
ROOT_MIN_GIB, ROOT_MAX_GIB = 4, 32
DATA_MIN_GIB = 1
ESP_MOUNT = "/boot/efi"
# All that ppn keeps on a node: images, VMs' disks, ledger.
DATA_MOUNT = "/var/lib/ppn"
USER_CA = "/etc/ssh/ppn_user_ca.pub"
# Units of the first boot run only where it is.
INSTALLED = "/etc/ppn/installed.env"
UNITS = "/etc/systemd/system"


@dataclass(frozen=True)
class File:
    """A file of the new system: its text and mode, or where it links to."""

    text: str = ""
    mode: int = 0o644
    link: str = ""


def repart_definitions(made: Mark) -> dict[str, str]:
    """The partitions, as systemd-repart's definitions by file name, in the disk's order."""
    return {
        "10-esp.conf": _partition(
            "esp", "ppn-esp", made, f"SizeMinBytes={ESP_MIB}M", f"SizeMaxBytes={ESP_MIB}M"
        ),
        "20-root.conf": _partition(
            "root-x86-64",
            "ppn-root",
            made,
            f"SizeMinBytes={ROOT_MIN_GIB}G",
            f"SizeMaxBytes={ROOT_MAX_GIB}G",
        ),
        "30-data.conf": _partition(
            "linux-generic", "ppn-data", made, f"SizeMinBytes={DATA_MIN_GIB}G", "Weight=3000"
        ),
    }


def _partition(kind: str, label: str, made: Mark, *sizes: str) -> str:
    lines = ["[Partition]", f"Type={kind}", f"Label={label}", f"UUID={made.partition(label)}"]
    return "\n".join([*lines, *sizes]) + "\n"


def node_files(settings: NodeSettings, made: Mark) -> dict[str, File]:
    """Every file that makes a node of the copied root, by its absolute path there.

    Args:
        settings: the node's.
        made: the mark of the installation, which names its partitions.
    """
    node = settings.node
    files = {
        "/etc/fstab": File(fstab(made)),
        "/etc/hostname": File(f"{node.name}\n"),
        "/etc/hosts": File(hosts(node.name)),
        # Where name servers that DHCP tells of are found too.
        "/etc/resolv.conf": File(link="../run/systemd/resolve/resolv.conf"),
        "/etc/kernel/cmdline": File(f"{command_line(made, node.kernel_options)}\n"),
        "/etc/kernel/entry-token": File("ppn\n"),
        "/etc/kernel/install.conf": File(f"layout=bls\nBOOT_ROOT={ESP_MOUNT}\n"),
        "/etc/ssh/sshd_config.d/20-operator.conf": File(SSHD),
        USER_CA: File("".join(f"{key}\n" for key in settings.ssh_ca_keys)),
        INSTALLED: File(installed(settings, made)),
        f"{UNITS}/systemd-networkd-wait-online.service.d/10-any.conf": File(WAIT_ONLINE),
        **_wanted("network-online.target", "systemd-networkd-wait-online.service"),
        **_wanted("sysinit.target", "systemd-resolved.service"),
    }
    files |= {
        f"/etc/systemd/network/{number:02}-site.network": File(text)
        for number, text in enumerate(networks(node), start=20)
    }
    if settings.mesh.relay is not None:
        files |= mesh_files(node, settings.mesh, settings.mesh.relay)
    return files


def _wanted(target: str, unit: str, template: str = "") -> dict[str, File]:
    """What `systemctl enable` does, without a running system."""
    path = PurePosixPath("/usr/lib/systemd/system") / (template or unit)
    return {f"{UNITS}/{target}.wants/{unit}": File(link=str(path))}


def installed(settings: NodeSettings, made: Mark) -> str:
    """What the units of the first boot go by, as shell variables; no value needs quotes."""
    values = {
        "NODE": settings.node.name,
        "INTERFACE": settings.mesh.interface,
        "IMAGE": made.image,
        "SETTINGS": made.settings,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def fstab(made: Mark) -> str:
    """Where the partitions are mounted."""
    rows = (
        ("ppn-root", "/", "ext4", "errors=remount-ro", 1),
        # It holds the boot loader's random seed, which is root's alone.
        ("ppn-esp", ESP_MOUNT, "vfat", "umask=0077", 2),
        ("ppn-data", DATA_MOUNT, "ext4", "defaults", 2),
    )
    return "".join(
        f"PARTUUID={made.partition(label)} {where} {kind} {options} 0 {order}\n"
        for label, where, kind, options, order in rows
    )


def hosts(name: str) -> str:
    """The names a node knows without asking."""
    return f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost\n"


def command_line(made: Mark, options: tuple[str, ...]) -> str:
    """The kernel's words on every boot of the new system; the operator's come last, and win."""
    root = f"root=PARTUUID={made.partition('ppn-root')}"
    usual = ("rw", "quiet", "console=tty0", "console=ttyS0,115200", "panic=30")
    return " ".join((root, *usual, *options))


def networks(node: Node) -> list[str]:
    """The node's interfaces as networkd reads them; every wired one by DHCP when none is named."""
    if not node.network:
        return ["[Match]\nType=ether\nKind=!*\n\n[Network]\nDHCP=yes\n"]
    return [_network(link) for link in node.network]


def _network(link: Link) -> str:
    # Of a bridge that is built on it later, the hardware address is the same.
    match = f"PermanentMACAddress={link.mac}" if link.mac else f"Name={link.name}"
    lines = ["[Match]", match, "Kind=!*", "", "[Network]"]
    lines += [f"Address={address}" for address in link.addresses] or ["DHCP=yes"]
    if link.gateway is not None:
        lines.append(f"Gateway={link.gateway}")
    lines += [f"DNS={address}" for address in link.dns]
    return "\n".join(lines) + "\n"


SSHD = f"""# Who holds a certificate of the operator's authority may log in, and nobody else.
TrustedUserCAKeys {USER_CA}
AuthorizedKeysFile none
AuthenticationMethods publickey
"""

# Any link will do. An emulated node under load needs all of the patience systemd has by itself.
WAIT_ONLINE = """[Service]
ExecStart=
ExecStart=/usr/lib/systemd/systemd-networkd-wait-online --any
"""

# The relay's name may not be known yet, or the network not there.
TRY_AGAIN = """[Unit]
StartLimitIntervalSec=0
After=ppn-node-keys.service
Requires=ppn-node-keys.service

[Service]
Restart=on-failure
RestartSec=15
"""


def mesh_files(node: Node, mesh: Mesh, relay: Relay) -> dict[str, File]:
    """What brings the mesh up with the relay as only peer; the pool's deploy goes on from it."""
    if node.mesh_address is None:
        return {}
    unit = f"wg-quick@{mesh.interface}.service"
    return {
        conf_path(mesh.interface): File(wg_quick(interface(node, mesh, relay)), mode=0o600),
        f"{UNITS}/{unit}.d/10-first-boot.conf": File(TRY_AGAIN),
        **_wanted("multi-user.target", unit, "wg-quick@.service"),
    }


def interface(node: Node, mesh: Mesh, relay: Relay) -> Interface:
    """A new node's WireGuard interface: the relay carries all."""
    address = node.mesh_address or mesh.range.network_address

    def probe(of: IPv4Address) -> IPv6Address:
        return PROBE_RANGE[int(of) - int(mesh.range.network_address)]

    peer = Peer(
        name=relay.name,
        address=relay.mesh_address,
        probe=probe(relay.mesh_address),
        ranges=(),
        public_key=relay.public_key,
        kind=Kind.STATIC,
        endpoint=relay.endpoint,
        keepalive=True,
    )
    return Interface(
        node=node.name,
        interface=mesh.interface,
        network=mesh.range,
        address=address,
        probe=probe(address),
        port=mesh.port,
        relays=False,
        ranges=(),
        guests=False,
        carrier=relay.name,
        peers=(peer,),
    )
