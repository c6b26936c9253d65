"""What keeps a question from being asked, a node from being reached, a node from working."""

from __future__ import annotations

from ppn.diagnosis.kind import QEMU, WHEREVER, Kind, codes_of

UNREACHABLE = codes_of("node_unreachable", "outcome_unknown")
OF_NODES = (
    # What keeps the question from being asked.
    Kind(
        "server_untrusted",
        "the server is not believed: it shows no sound certificate of the pool",
        "look at the address and at --ca; if both are right, run the pool's deploy for that node",
        codes_of("server_untrusted"),
    ),
    Kind(
        "token_refused",
        "the token is not accepted",
        "ask the operator for another one: `ppn tenant token issue`",
        codes_of("token_refused", "token_unreadable"),
    ),
    Kind(
        "not_allowed",
        "this machine may not ask that",
        "ask from a controller's machine; the inventory says which they are",
        codes_of("forbidden", "plain_http"),
    ),
    Kind(
        "controller_down",
        "the controller does not answer",
        "on its node: `systemctl status ppn-fleet`, then `journalctl -u ppn-fleet`;"
        " or ask another one with --controller",
        codes_of("controller_unreachable"),
    ),
    Kind(
        "controller_warming_up",
        "the controller has just started and has not heard every node yet",
        "ask again in half a minute; `ppn node list` shows who is missing",
        codes_of("warming_up"),
    ),
    # What keeps a node from being reached.
    Kind(
        "controller_certificate_ended",
        "the certificate of the controller's own node has ended, so no node answers it",
        "run the pool's deploy for the controller's node: it signs another one",
        codes_of("certificate_ended"),
        r"alert certificate expired",
        UNREACHABLE,
    ),
    Kind(
        "proxy_certificate_ended",
        "the certificate of {node} has ended, so nobody speaks to it",
        "run the pool's deploy for {node}: it signs another one",
        said=r"certificate has expired",
        among=UNREACHABLE,
    ),
    Kind(
        "clock_wrong",
        "a clock is wrong: a certificate of {node} does not hold yet, or its time is another",
        "compare `date -u` on {node} and here; mend it with `timedatectl set-ntp true`",
        said=r"certificate is not yet valid",
        among=UNREACHABLE,
    ),
    Kind(
        "proxy_untrusted",
        "{node} and the controller do not believe each other's certificates",
        "run the pool's deploy for both; `ppn ca show /etc/ppn/tls/node.crt` shows what they have",
        codes_of("tls_unusable", "source_wrong"),
        r"certificate verify failed|tlsv1 alert|bad certificate|unknown ca",
        UNREACHABLE,
    ),
    Kind(
        "proxy_down",
        "the node proxy of {node} does not run, though the node answers",
        "on {node}: `systemctl status ppn-node-proxy`, then `journalctl -u ppn-node-proxy`",
        said=r"connection refused",
        among=UNREACHABLE,
    ),
    Kind(
        "mesh_cut",
        "{node} cannot be reached through the mesh: its path is cut, or it is off",
        "here: `ppn debug mesh`; on {node}, if it is up: `systemctl status wg-quick@ppn0`",
        codes_of("node_unreachable"),
        r"timed out|timeout|no route|unreachable",
        UNREACHABLE,
    ),
    Kind(
        "mesh_down",
        "the mesh interface of {node} is not there",
        "on {node}: `systemctl restart wg-quick@ppn0`; `journalctl -u wg-quick@ppn0` says why",
    ),
    Kind(
        "agent_down",
        "the host agent of {node} does not run",
        "on {node}: `systemctl status ppn-agent`, then `journalctl -u ppn-agent`",
        codes_of("agent_unavailable", "agent_silent"),
    ),
    Kind(
        "service_down",
        "a service of {node} does not run",
        "on {node}: `systemctl status` of the unit, then its journal",
    ),
    # What keeps a node from working.
    Kind(
        "libvirt_down",
        "libvirt on {node} does not answer",
        "on {node}: `systemctl restart libvirtd`; VMs that run are not touched by it",
        codes_of("libvirt_down", "libvirt_unavailable", "libvirt_timeout", "libvirt_missing"),
    ),
    Kind(
        "ledger_tampered",
        "the capability ledger on {node} is damaged or was changed: nothing is granted by it",
        "run the pool's deploy for {node}, which puts the signed ledger back; find out who wrote"
        " /var/lib/ppn/ledger.jsonl; `ppn ledger verify` names the first bad entry",
        codes_of(
            "ledger_unusable",
            "ledger_unavailable",
            "ledger_bad_signature",
            "ledger_broken_chain",
            "ledger_torn",
            "ledger_wrong_sequence",
        ),
    ),
    Kind(
        "kvm_broken",
        "KVM does not work on {node}",
        "on {node}: `ppn host probe-kvm --again` says why; look at the firmware's virtualisation"
        " setting and at /dev/kvm; an order with --no-kvm runs without",
        said=r"/dev/kvm|kvm kernel module|initialize kvm|domain type kvm|virttype=kvm|KVM is not",
        sources=WHEREVER | QEMU,
    ),
    Kind(
        "disk_full",
        "{node} has no room left for disks",
        "destroy VMs, discard detached disks, or add room below /var/lib/ppn on {node};"
        " `ppn node list` shows who has room",
        codes_of("disk_exhausted"),
        r"no space left on device|disk quota exceeded",
        sources=WHEREVER | QEMU,
    ),
)
