"""What is open, only a consequence, or no more than a warning."""

from __future__ import annotations

from ppn.diagnosis.kind import Kind, codes_of

OF_REST = (
    # What is open, or only a consequence.
    Kind(
        "node_silent",
        "{node} is not heard: it is off, its agent does not run, or the mesh is cut",
        "`ppn debug node {node}`; and on {node}: `systemctl status ppn-agent`",
        codes_of("node_stale", "nodes_silent"),
    ),
    Kind(
        "outcome_open",
        "a node has not told yet what became of the VM",
        "ask again; the same order under the same key is made once",
        codes_of("outcome_unknown", "vm_undecided", "vm_busy", "order_elsewhere", "agent_timeout"),
    ),
    Kind(
        "hypervisor_failed",
        "libvirt or a program on {node} could not do what was asked",
        "what it said stands beside this, and in QEMU's log; on {node}: `journalctl -u libvirtd`",
        codes_of("libvirt_failed", "command_failed", "file_failed", "vm_not_running"),
    ),
    Kind(
        "unmanaged",
        "something on {node} came another way than through ppn",
        "find out who made it and remove it by hand; `ppn fleet alerts` names it",
        codes_of("domain_unmanaged", "folder_unmanaged", "qemu_unmanaged"),
    ),
    Kind(
        "weight_not_in_force",
        "a VM on {node} has not the CPU weight of the ledger",
        "on {node}: `ppn host enforce`",
        codes_of("weight_not_in_force"),
    ),
    Kind(
        "path_keeper_stopped",
        "the path keeper of {node} does not run: everything goes through the relay",
        "on {node}: `systemctl status ppn-path-keeper`",
        grade="warning",
    ),
    Kind(
        "firewall_missing",
        "the pool's firewall rules are not loaded on {node}",
        "on {node}: `systemctl restart ppn-nftables`; run the pool's deploy for it",
    ),
    Kind(
        "peer_silent",
        "{node} has no mesh path to a peer: that one is off, or cut off",
        "on the peer, if it is up: `systemctl status wg-quick@ppn0`; is its endpoint's UDP port"
        " open?",
        grade="warning",
    ),
    Kind(
        "certificate_ends_soon",
        "a certificate of {node} ends within two weeks",
        "run the pool's deploy for {node}: it signs another one",
        grade="warning",
    ),
    Kind(
        "kvm_missing",
        "KVM is not usable on {node}: its VMs are emulated, and slow",
        "on {node}: `ppn host probe-kvm --again` says why",
        grade="warning",
    ),
    Kind(
        "versions_differ",
        "{node} runs another version of ppn",
        "run the pool's deploy for {node}",
        grade="warning",
    ),
    Kind(
        "vm_unknown",
        "there is no VM {subject}",
        "`ppn vm list` shows what there is; if another controller took the order, ask that one",
        codes_of("vm_unknown", "decision_unknown"),
    ),
    Kind(
        "node_unknown",
        "the controller knows no hypervisor {subject}",
        "`ppn node list` shows which there are; run `ppn debug node` on the machine itself",
        codes_of("node_unknown"),
    ),
)
