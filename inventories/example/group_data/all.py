"""What holds for all nodes of the pool."""

from pathlib import Path

_pool = Path(__file__).resolve().parent.parent

mesh_range = "10.8.0.0/24"
mesh_interface = "ppn0"
mesh_port = 51820

# Whence operators come: SSH is closed to everybody else outside the mesh (docs/mesh.md).
# ssh_from = ["203.0.113.7/32"]

# Public keys of the nodes, recorded by the first run. Review it and commit it.
peer_registry = str(_pool / "peers.json")

# What each VM is granted, signed by the operator. Commit the ledger, never the private key.
ledger = str(_pool / "ledger.jsonl")
operator_key = str(Path.home() / ".config" / "ppn" / "operator.key")
operator_public_key = str(_pool / "operator.pub")

# The authority of the pool's certificates, made by `ppn ca init` (docs/certificates.md).
# Commit its certificate, never its key.
ca_key = str(Path.home() / ".config" / "ppn" / "ca.key")
ca_certificate = str(_pool / "ca.crt")

# Customers' machines: WireGuard peers that reach the nodes with the role "tenant-proxy", and
# nothing else of the pool (docs/mesh.md).
# tenant_peers = [
#     {
#         "name": "acme-desk",
#         "tenant": "acme",
#         "mesh_address": "10.8.0.200",
#         "public_key": "what `wg pubkey` prints at the customer's",
#     },
# ]

# Guest images by name: folders on this machine with a manifest.json (docs/images.md).
images = {"debian-13": str(_pool / "images" / "debian-13")}

# Whom the pool tells of alerts (docs/reconciliation.md), and how many days reports are kept.
alert_sinks = [{"kind": "file", "name": "log", "path": "/var/log/ppn-alerts/alerts.jsonl"}]
report_days = 400
