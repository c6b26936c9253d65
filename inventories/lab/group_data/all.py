"""What holds for all nodes of a lab; which lab is told by `PPN_LAB` (`scripts/lab` sets it)."""

import os

from lab.paths import LabPaths

_lab = LabPaths(os.environ.get("PPN_LAB", "default"))

mesh_range = "10.8.0.0/24"
mesh_interface = "ppn0"
mesh_port = 51820
# The operator of a lab, and nobody else on its internet (lab/topology.py).
ssh_from = ["198.51.100.250/32"]
peer_registry = str(_lab.peer_registry)
ledger = str(_lab.ledger)
operator_key = str(_lab.operator_key)
operator_public_key = str(_lab.operator_public_key)
ca_key = str(_lab.ca_key)
ca_certificate = str(_lab.ca_certificate)
images = {"tiny": str(_lab.tiny_guest)}

# Whom the pool tells of alerts (docs/reconciliation.md).
alert_sinks = [{"kind": "file", "name": "log", "path": "/var/log/ppn-alerts/alerts.jsonl"}]
# Made by `scripts/lab up`: nobody is a customer of a lab that never was up.
tenant_peers = [
    {
        "name": "acme-desk",
        "tenant": "acme",
        "mesh_address": "10.8.0.200",
        "public_key": path.read_text(encoding="ascii").strip(),
    }
    for path in [_lab.customer_public_key]
    if path.exists()
]

ssh_user = "root"
ssh_key = str(_lab.ssh_key)
ssh_known_hosts_file = str(_lab.known_hosts)
ssh_strict_host_key_checking = "yes"
