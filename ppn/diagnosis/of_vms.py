"""What is wrong with an order or the room for it, and what happened to a VM that was there."""

from __future__ import annotations

from ppn.diagnosis.kind import CONSOLE, QEMU, Kind, codes_of

OF_AN_ORDER = codes_of("spec_invalid", "request_invalid", "user_data_invalid")
OF_VMS = (
    # What is wrong with the order, or with the room for it.
    Kind(
        "quota_exceeded",
        "the tenant's ceiling is reached",
        "destroy or shrink VMs of the tenant, or have the operator raise it: `ppn tenant set`",
        codes_of("quota_exceeded"),
    ),
    Kind(
        "image_missing",
        "{node} has no sound image of that name",
        "put the image on the node with the pool's deploy (docs/images.md), or order another one",
        codes_of("image_unknown", "image_damaged"),
    ),
    Kind(
        "disk_too_small",
        "the root disk is smaller than the image",
        "order it with a larger --disk-gib",
        codes_of("disk_below_image"),
    ),
    Kind(
        "ports_empty",
        "no host port of {node} is left for the guest, or not the one that was asked for",
        "leave the host port out, destroy VMs with ports, or widen `port_first` to `port_last` of"
        " {node} in the inventory",
        codes_of("ports_exhausted", "port_taken", "port_outside"),
    ),
    Kind(
        "addresses_empty",
        "the VM network of {node} has no free address, or there is none",
        "give {node} a `vm_range`, or a larger one, in the inventory and run the deploy",
        codes_of("addresses_exhausted", "network_missing", "address_taken", "address_outside"),
    ),
    Kind(
        "network_down",
        "the bridge of the VM network is not there on {node}",
        "on {node}: `systemctl restart ppn-vm-network`",
        codes_of("network_down"),
    ),
    Kind(
        "numa_rule",
        "the vCPUs break the placement rule: an even count, and no more than one socket has cores",
        "order an even --vcpus of at most the largest socket; `allow_odd_vcpus` of a node in the"
        " inventory allows odd ones",
        codes_of("vcpus_odd", "vcpus_exceed_socket"),
    ),
    Kind(
        "cpus_full",
        "{node} has too few free CPUs",
        "order fewer --vcpus, destroy VMs, or add a node",
        codes_of("vcpus_exhausted", "cpu_taken"),
    ),
    Kind(
        "memory_full",
        "{node} has too little free memory",
        "order less --memory-mib, destroy VMs, lower balloon minimums, or add a node",
        codes_of("memory_exhausted", "memory_not_free", "memory_exceeds_node"),
    ),
    Kind(
        "label_rule",
        "affinity or anti-affinity rules {node} out",
        "change the labels of the order, or destroy the VM that is in the way",
        codes_of("affinity_unmet", "anti_affinity_unmet"),
    ),
    Kind(
        "user_data_wrong",
        "the user data of the order cannot become a seed",
        "correct the named key of --user-data; hostname and ssh keys have fields of their own",
        codes_of("user_data_invalid"),
        r"user_data|cloud-config",
        OF_AN_ORDER,
    ),
    Kind(
        "order_wrong",
        "the order breaks the rules of a VM's description",
        "correct the named field and order again",
        OF_AN_ORDER,
    ),
    Kind(
        "key_reused",
        "the idempotency key was used for another order",
        "use another --key for another VM",
        codes_of("order_differs", "vm_exists"),
    ),
    # What happened to a VM that was there.
    Kind(
        "sidecar_damaged",
        "the record of {subject} on {node} is gone or damaged",
        "put a copy of sidecar.json back, or destroy the VM, which removes its disks",
        codes_of("sidecar_damaged", "sidecar_missing"),
    ),
    Kind(
        "disk_lost",
        "a disk file of {subject} is gone or damaged",
        "put the file back from a copy, or destroy the VM",
        codes_of("disk_lost", "disk_damaged"),
    ),
    Kind(
        "seed_damaged",
        "the seed volume of {subject} is missing or damaged",
        "on {node}: remove seed.iso from the VM's folder, then `ppn vm stop` and `ppn vm start`:"
        " it is written anew",
        said=r"seed\.iso",
        sources=QEMU,
    ),
    Kind(
        "seed_refused",
        "the guest cannot use its seed",
        "correct the user data and order the VM anew: cloud-init reads a seed once",
        said=r"failed loading yaml|cloud-config.*(invalid|failed)|invalid cloud-config"
        r"|isofs.*(error|unable)|unable to read.*(seed|cidata)",
        sources=CONSOLE,
    ),
    Kind(
        "vm_doubled",
        "more than one node has {subject}",
        "decide which one to keep and destroy the other on its node",
        codes_of("vm_doubled"),
    ),
    Kind(
        "guest_panic",
        "the guest's kernel gave up",
        "look at the console (`ppn vm console`): the image or its kernel command line is at fault",
        said=r"kernel panic|not syncing",
        sources=CONSOLE,
    ),
    Kind(
        "guest_no_disk",
        "the guest finds nothing to boot from",
        "the image is at fault: order another one, or have it built anew (docs/images.md)",
        said=r"no bootable device|unable to mount root|cannot find.*root",
        sources=CONSOLE,
    ),
    Kind(
        "qemu_silent",
        "the QEMU of {subject} does not answer libvirt",
        "on {node}: kill the process of /run/libvirt/qemu/{subject}.pid, then `ppn vm start"
        " {subject}`; one that cannot be killed waits for a disk: `journalctl -k`",
        codes_of("qemu_silent"),
    ),
    Kind(
        "qemu_killed",
        "the QEMU of {subject} ended by itself or was killed",
        "start it: `ppn vm start {subject}`; on {node}, `journalctl -k` says whether memory ran"
        " out",
        codes_of("qemu_gone"),
    ),
    Kind(
        "domain_missing",
        "libvirt on {node} knows nothing of {subject}",
        "start it: `ppn vm start {subject}`: its domain is made anew from its record",
        codes_of("domain_missing"),
    ),
    Kind(
        "agent_ended",
        "the agent of {node} ended during an operation",
        "the next agent puts it in order; repeat the order under the same key",
        codes_of("agent_ended", "vm_half_made", "agent_failed"),
    ),
)
