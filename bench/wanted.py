"""What the lab's nodes shall be, as variables for the Ansible playbook.

Taken from the declarations pyinfra runs from, so that both sides want the same to the byte.
"""

from __future__ import annotations

import hashlib
import os
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploys import (
    base,
    certificates,
    fleet_controller,
    host_agent,
    hypervisor,
    mesh,
    node_proxy,
    vm_network,
)
from deploys.declared import Declaration, declare, local_image, wanted_ledger
from deploys.services import SERVICES
from deploys.units import unit_file, unit_text
from deploys.wheelhouse import PYTHON_OF_DEBIAN, Wheelhouse, wheelhouse
from facts.hardware import Hardware
from facts.nftables import LOADED, UNIT
from lab.paths import LabPaths
from operations import nftables, wireguard
from operations.certificates import trust_bundle
from operations.files import File
from operations.software import COMMAND, FOLDER, INSTALLER, MARKER
from ppn.fleet.settings import PATH as FLEET_SETTINGS
from ppn.host.model import DiskPool, Topology
from ppn.host.proxy.settings import PATH as PROXY_SETTINGS
from ppn.inventory import Pool, pool_from_data
from ppn.mesh.firewall import TABLE, ruleset
from ppn.mesh.peers import interface_of
from ppn.mesh.registry import Registry, load
from ppn.mesh.render import drop_in_path, key_path
from ppn.pool import certificates as certs
from ppn.pool.ledger import Grant
from ppn.pool.tls import NODE_CERTIFICATE, NODE_KEY, NODE_TRUST

CHECKOUT = Path(__file__).resolve().parent.parent
INVENTORY = CHECKOUT / "inventories" / "lab"
NODE_RELEASE = "13"

Variables = dict[str, Any]


def ansible_inventory(lab: LabPaths, folder: Path) -> Variables:
    """An Ansible inventory of a lab, in the form of its YAML plugin.

    Args:
        lab: a lab that has converged, so that its ledger and peer registry are there.
        folder: takes the files the playbook needs to have as files.
    """
    nodes = lab_nodes(lab)
    wheels = wheelhouse(PYTHON_OF_DEBIAN[NODE_RELEASE])
    (folder / "install-ppn").write_text(INSTALLER, encoding="utf-8")
    pool, _ = pool_from_data(next(iter(nodes.values())), nodes)
    registry = load(lab.peer_registry)
    hosts = {
        name: {
            **connection(lab, data),
            **common(wheels, folder),
            **node_variables(name, data, pool, registry),
        }
        for name, data in nodes.items()
    }
    hypervisors = [name for name, data in nodes.items() if "hypervisor" in data["roles"]]
    return {
        "all": {
            "hosts": hosts,
            "children": {"hypervisors": {"hosts": {name: {} for name in hypervisors}}},
        }
    }


def lab_nodes(lab: LabPaths) -> dict[str, Variables]:
    """Per node of the lab's inventory its data, group data included."""
    before = os.environ.get("PPN_LAB")
    os.environ["PPN_LAB"] = lab.name
    try:
        group = runpy.run_path(str(INVENTORY / "group_data" / "all.py"))
    finally:
        if before is None:
            del os.environ["PPN_LAB"]
        else:
            os.environ["PPN_LAB"] = before
    shared = {key: value for key, value in group.items() if not key.startswith("_")}
    nodes = runpy.run_path(str(INVENTORY / "inventory.py"))["nodes"]
    return {name: {**shared, **data} for name, data in nodes}


def connection(lab: LabPaths, data: Mapping[str, Any]) -> Variables:
    """How Ansible reaches a node."""
    return {
        "ansible_host": data["ssh_hostname"],
        "ansible_user": data["ssh_user"],
        "ansible_ssh_private_key_file": str(lab.ssh_key),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={lab.known_hosts}"
        " -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes",
        # Found out anew for each node otherwise.
        "ansible_python_interpreter": "/usr/bin/python3",
    }


def common(wheels: Wheelhouse, folder: Path) -> Variables:
    """What is the same for every node."""
    return {
        "releases": list(PYTHON_OF_DEBIAN),
        "software": {
            "digest": wheels.release.digest,
            "archives": {
                f"dependencies-{wheels.dependencies.digest}": str(wheels.dependencies.archive),
                f"venv-{wheels.release.digest}": str(wheels.release.archive),
            },
            "marker": MARKER,
            "script": str(folder / "install-ppn"),
            "words": f"{FOLDER} {wheels.dependencies.digest} {wheels.release.digest} {COMMAND}",
        },
    }


def node_variables(name: str, data: Mapping[str, Any], pool: Pool, registry: Registry) -> Variables:
    """What a node shall be."""
    declaration = declare(name, data)
    return {
        "node_roles": data["roles"],
        **role_variables(name, declaration, pool, registry),
        "mesh": {
            "interface": pool.interface,
            "port": pool.port,
            "key": key_path(pool.interface),
            "public_key": registry.keys[name],
            "peers": tunnels(name, pool, registry),
            "table": TABLE,
            "loaded": LOADED,
        },
        "qemu_conf": {
            "with_cpu": hypervisor.qemu_conf(hardware(cpu_controller=True)),
            "without_cpu": hypervisor.qemu_conf(hardware(cpu_controller=False)),
        },
        "tls": tls_variables(data),
        **vm_variables(declaration, data),
    }


def role_variables(
    name: str, declaration: Declaration, pool: Pool, registry: Registry
) -> Variables:
    """The packages, users, files and units that a node's roles need."""
    roles = pool.node(name).roles
    packages = [*base.PACKAGES, *mesh.needed_packages(kernel_has_wireguard=False)]
    packages += certificates.PACKAGES
    users = [*base.USERS]
    files = mesh_files(name, pool, registry)
    units = [
        unit(UNIT),
        unit(f"wg-quick@{pool.interface}.service", drop_in_path(pool.interface)),
        unit(mesh.KEEPER, MARKER),
    ]
    if "controller" in roles:
        users.append(fleet_controller.USER)
        files |= fleet_controller.controller_files(pool, name)
        units.append(unit(fleet_controller.UNIT, FLEET_SETTINGS, NODE_KEY, MARKER))
    if "hypervisor" in roles:
        packages += hypervisor.PACKAGES
        users.append(node_proxy.USER)
        files |= hypervisor_files(declaration)
        files |= host_agent.agent_files(pool, name) | node_proxy.proxy_files(pool, name)
        units += [
            unit("libvirtd.service"),
            unit("ppn-kvm-probe.service"),
            unit(vm_network.UNIT, hypervisor.SETTINGS, MARKER),
            unit(host_agent.UNIT, host_agent.PATH, hypervisor.SETTINGS, MARKER),
            unit(node_proxy.UNIT, PROXY_SETTINGS, NODE_KEY, MARKER),
        ]
    return {
        "packages": list(dict.fromkeys(packages)),
        "users": users,
        "files": [file_variables(path, file) for path, file in files.items()],
        "units": units,
    }


def tls_variables(data: Mapping[str, Any]) -> Variables:
    """What a node's certificate is judged by."""
    authority = Path(data["ca_certificate"])
    return {
        "key": NODE_KEY,
        "certificate": NODE_CERTIFICATE,
        "trust": NODE_TRUST,
        "authority": trust_bundle(authority, authority),
        "left_seconds": int(certs.LIFETIME.total_seconds()) // 3,
        "address": data["mesh_address"],
    }


def mesh_files(name: str, pool: Pool, registry: Registry) -> dict[str, File]:
    """The files of a mesh node."""
    (firewall_unit,) = unit_file(mesh.FIREWALL).values()
    return {
        **nftables.wanted_files(ruleset(pool, pool.node(name), SERVICES), firewall_unit.content),
        **wireguard.wanted_files(interface_of(pool, registry, name), unit_text(mesh.SUPERVISION)),
        **mesh.keeper_unit(pool.interface, kernel_has_wireguard=False),
    }


def tunnels(name: str, pool: Pool, registry: Registry) -> list[str]:
    """Public keys of the peers a node has a tunnel to."""
    return sorted(interface_of(pool, registry, name).allowed_ips())


def vm_variables(declaration: Declaration, data: Mapping[str, Any]) -> Variables:
    """The guest images, the ledger and the VMs of a node."""
    granted = wanted_ledger([declaration])
    ledger = Path(data["ledger"])
    images = {name: Path(folder) for name, folder in data["images"].items()}
    return {
        "images": [
            {"name": name, "folder": str(folder), "digest": local_image(name, folder).digest}
            for name, folder in images.items()
        ],
        "operator_key": Path(data["operator_public_key"]).read_text(encoding="ascii"),
        "ledger": {
            "path": str(ledger),
            "digest": hashlib.sha256(ledger.read_bytes()).hexdigest(),
        },
        "vms": [
            {
                "spec": spec.model_dump(mode="json"),
                "weight": grant.weight,
                "minimum_mib": grant.minimum_mib,
            }
            for spec in declaration.specs
            if isinstance(grant := granted[spec.name], Grant)
        ],
    }


def hypervisor_files(declaration: Declaration) -> dict[str, File]:
    """The files of a hypervisor whose text does not depend on its hardware."""
    settings = declaration.settings.model_dump_json(indent=2) + "\n"
    return {
        hypervisor.SETTINGS: File(settings),
        **unit_file("ppn-kvm-probe.service"),
        **unit_file(vm_network.UNIT),
    }


def hardware(*, cpu_controller: bool) -> Hardware:
    """Hardware of which only the cgroup controller matters."""
    topology = Topology(cpus=0, sockets=(), memory_mib=0)
    return Hardware(topology, DiskPool(total_mib=0, free_mib=0, promised_mib=0), cpu_controller)


def file_variables(path: str, file: File) -> Variables:
    """A file as the playbook loops over it."""
    return {
        "path": path,
        "content": file.content,
        "mode": file.mode,
        "owner": file.owner,
        "group": file.group,
    }


def unit(name: str, *restart_after: str) -> Variables:
    """A unit that is enabled and runs, and the files after whose change it is restarted."""
    own = f"/etc/systemd/system/{name}"
    return {"name": name, "enabled": True, "restart_after": [own, *restart_after]}
