"""A real pool to copy: one cloud relay, two servers, one laptop, four VMs.

    cp -r inventories/example inventories/mypool
    ppn ledger keygen ...                                        (docs/ledger.md)
    pyinfra inventories/mypool/inventory.py deploys/site.py --dry
    pyinfra inventories/mypool/inventory.py deploys/site.py

What holds for all nodes stands in group_data/all.py beside this file. Every list of names at the
top level of an inventory is a group of hosts to pyinfra, so keep other lists out of this file.
"""

# Gets into every VM of the example. Put your own key here.
_admin_key = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKm1vT4YyWb0mSxSxxKoFpE0Zn0iqcvCAZ8vVxTkQYqd admin"
)

nodes = [
    (
        # How SSH reaches the node is pyinfra's: the name is looked up in ~/.ssh/config as usual.
        "relay",
        {
            "ssh_hostname": "relay.example.net",
            "ssh_user": "root",
            # What the node does: any of "relay", "hypervisor", "controller", "tenant-proxy" and
            # "witness", or none. The tenant proxy is the customers' door (docs/tenant-proxy.md).
            "roles": ["relay", "controller", "tenant-proxy"],
            # Nodes of one site are assumed to reach each other without the relay.
            "site": "cloud",
            # Its address in the mesh. Every service listens there and nowhere else.
            "mesh_address": "10.8.0.1",
            # Where other sites reach its WireGuard port. A relay needs one.
            "endpoint": "relay.example.net:51820",
        },
    ),
    (
        "server1",
        {
            "ssh_hostname": "192.168.10.11",
            "ssh_user": "root",
            "roles": ["hypervisor"],
            "site": "office",
            "mesh_address": "10.8.0.11",
            # The office router forwards this port, so others can reach server1 without the relay.
            "endpoint": "office.example.net:51820",
            # Nodes of its own site reach it here, without the router.
            "site_endpoint": "192.168.10.11:51820",
            # CPUs and memory that no VM is promised.
            "vcpu_buffer": 2,
            "memory_buffer_mib": 2048,
            # The network of its VMs: any that nothing else of the pool has.
            "vm_range": "10.9.11.0/24",
            "vms": [
                {
                    "name": "web",
                    "image": "debian-13",
                    "vcpus": 2,
                    # The most it can have, and what it keeps when the node is short of memory.
                    "memory_mib": 4096,
                    "minimum_mib": 1024,
                    "disk_gib": 20,
                    # Its share of CPU time when VMs compete, 1 to 10000; 100 when not given.
                    "weight": 300,
                    # Mesh nodes reach it at 10.8.0.11:30080, and its SSH at a port that
                    # `ppn host state` on server1 tells.
                    "ports": [{"guest": 80, "host": 30080}, {"guest": 22}],
                    "ssh_keys": [_admin_key],
                },
                {
                    "name": "db",
                    "image": "debian-13",
                    "vcpus": 4,
                    "memory_mib": 8192,
                    "minimum_mib": 4096,
                    "disk_gib": 20,
                    "disks": [{"name": "data", "size_gib": 200}],
                    "weight": 400,
                    "ssh_keys": [_admin_key],
                },
            ],
        },
    ),
    (
        # No endpoint: it is reached by the tunnels it opens itself, direct or through the relay.
        "server2",
        {
            "ssh_hostname": "192.168.10.12",
            "ssh_user": "root",
            "roles": ["hypervisor"],
            "site": "office",
            "mesh_address": "10.8.0.12",
            "vcpu_buffer": 2,
            "memory_buffer_mib": 2048,
            "vm_range": "10.9.12.0/24",
            "vms": [
                {
                    "name": "archive",
                    "image": "debian-13",
                    "vcpus": 2,
                    "memory_mib": 2048,
                    "minimum_mib": 512,
                    "disk_gib": 500,
                    "ssh_keys": [_admin_key],
                },
            ],
        },
    ),
    (
        "laptop",
        {
            "ssh_hostname": "laptop.local",
            "ssh_user": "root",
            "roles": ["hypervisor"],
            "site": "home",
            "mesh_address": "10.8.0.21",
            # Used for placement only when nothing else has room.
            "reserved": True,
            "memory_buffer_mib": 4096,
            "vm_range": "10.9.21.0/24",
            # Its VMs may open connections to public addresses.
            "vm_internet": True,
            "vms": [
                {
                    "name": "scratch",
                    "image": "debian-13",
                    # To remove a VM with its disks, declare it absent and run once more.
                    "state": "stopped",
                    "vcpus": 2,
                    "memory_mib": 2048,
                    "minimum_mib": 512,
                    "disk_gib": 20,
                    "ssh_keys": [_admin_key],
                },
            ],
        },
    ),
]
