"""The lab on this machine: a cloud relay, a server at one site and a laptop at another.

Used from inside the lab: `scripts/lab converge`, or
`scripts/lab exec -- pyinfra inventories/lab/inventory.py deploys/site.py`.
"""

nodes = [
    (
        "relay",
        {
            "roles": ["relay", "controller", "tenant-proxy"],
            "site": "cloud",
            "mesh_address": "10.8.0.1",
            "endpoint": "198.51.100.10:51820",
            "ssh_hostname": "198.51.100.10",
        },
    ),
    (
        "server",
        {
            "roles": ["hypervisor", "controller", "witness"],
            "site": "site-a",
            "mesh_address": "10.8.0.2",
            # The router of site A forwards this port to the server.
            "endpoint": "198.51.100.11:51820",
            "ssh_hostname": "198.51.100.11",
            "allow_odd_vcpus": True,
            "vm_range": "10.9.2.0/24",
            "vms": [
                {
                    "name": "web",
                    "image": "tiny",
                    "vcpus": 1,
                    "memory_mib": 256,
                    "minimum_mib": 128,
                    "weight": 300,
                    # The tiny guest answers HTTP there.
                    "ports": [{"guest": 80}],
                },
                {
                    "name": "archive",
                    "image": "tiny",
                    "vcpus": 1,
                    "memory_mib": 192,
                    "minimum_mib": 128,
                    "disks": [{"name": "data", "size_gib": 1}],
                },
            ],
        },
    ),
    (
        "laptop",
        {
            "roles": ["hypervisor"],
            "site": "site-b",
            "mesh_address": "10.8.0.3",
            "ssh_hostname": "198.51.100.12",
            "reserved": True,
            "allow_odd_vcpus": True,
            "vm_range": "10.9.3.0/24",
            "vms": [
                {
                    "name": "notes",
                    "image": "tiny",
                    "vcpus": 1,
                    "memory_mib": 192,
                    "minimum_mib": 128,
                    "weight": 50,
                },
            ],
        },
    ),
]
