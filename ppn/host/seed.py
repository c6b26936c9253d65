"""The cloud-init NoCloud volume of a VM (HOST-03).

All documents are JSON, which every YAML reader reads as itself: a value stays a value, whatever
characters it holds, and can never become a key.
"""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Network
from pathlib import Path

from ppn.durable import write_atomic
from ppn.host.lease import Lease
from ppn.host.model import NodeNetwork
from ppn.host.spec import VmSpec
from ppn.iso9660 import volume

VOLUME_LABEL = "cidata"
# JSON text may hold these as they are; YAML forbids them or takes them for line breaks. Not all
# that is beyond ASCII is escaped, for YAML readers do not join JSON's surrogate pairs.
NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def user_data(spec: VmSpec) -> bytes:
    """The cloud-config of a VM: the owner's own, and what the spec's fields decide."""
    config: dict[str, object] = dict(spec.user_data or {})
    config["hostname"] = spec.hostname
    if spec.ssh_keys:
        config["ssh_authorized_keys"] = list(spec.ssh_keys)
    return b"#cloud-config\n" + _document(config)


def meta_data(spec: VmSpec, uuid: str) -> bytes:
    """The instance's identity; cloud-init runs its first-boot modules once for each."""
    return _document({"instance-id": uuid, "local-hostname": spec.hostname})


def network_config(mac: str, lease: Lease, network: NodeNetwork) -> bytes:
    """The guest's network, version 2: one interface, found by its hardware address."""
    prefix = IPv4Network(network.range).prefixlen
    interface = {
        "match": {"macaddress": mac},
        # Renderers that match by name alone need one.
        "set-name": "eth0",
        "addresses": [f"{lease.address}/{prefix}"],
        "routes": [{"to": "0.0.0.0/0", "via": network.gateway}],
    }
    return _document({"version": 2, "ethernets": {"eth0": interface}})


def seed_image(spec: VmSpec, uuid: str, network: bytes | None = None) -> bytes:
    """The whole volume: ISO 9660 with Rock Ridge and Joliet names, labelled `cidata`.

    Args:
        spec: the VM.
        uuid: its identity.
        network: the document of `network_config`; None for a guest without a network.
    """
    documents = {"user-data": user_data(spec), "meta-data": meta_data(spec, uuid)}
    if network is not None:
        documents["network-config"] = network
    return volume(VOLUME_LABEL, documents)


def write_seed(path: Path, spec: VmSpec, uuid: str, network: bytes | None = None) -> None:
    """Put a VM's seed in place; only root and the hypervisor read it."""
    write_atomic(path, seed_image(spec, uuid, network), mode=0o600)


def _document(values: dict[str, object]) -> bytes:
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)
    return NOT_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode() + b"\n"
