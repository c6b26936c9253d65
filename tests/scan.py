"""A connect scan of every TCP port, and what a few UDP ports say: `python -m tests.scan ADDRESS`.

Prints one JSON object: per address the TCP ports that are open, how many answered otherwise, by the
name of the error, and what each UDP port answered. A port that says nothing is in none of them.
Each attempt is waited for long enough for the kernel to repeat a lost packet.
"""

from __future__ import annotations

import errno
import json
import resource
import select
import socket
import time
from argparse import ArgumentParser
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice, product
from typing import Any

PORTS = range(1, 65536)
# Slow enough for wireguard-go, whose queue drops what comes faster, and for 20,000 descriptors.
PER_SECOND = 12_000
BURST = 250
# The first repetition comes after one second.
WAIT_SECONDS = 1.3
# DNS, DHCP, TFTP, portmap, NTP, NetBIOS, SNMP, IKE, mDNS, our own TCP ports, WireGuard, keeper.
UDP_PORTS = (53, 67, 69, 111, 123, 137, 161, 500, 4500, 5353, 9203, 9204, 9221, 51820, 51821)
Target = tuple[str, int]
Answer = tuple[Target, str]


class Attempts:
    """Connections under way, each waited for equally long.

    Args:
        wait: so many seconds.
    """

    def __init__(self, wait: float) -> None:
        self.wait = wait
        self.poll = select.epoll()
        self.waiting: dict[int, tuple[socket.socket, Target]] = {}
        self.due: deque[tuple[float, int]] = deque()

    def begin(self, target: Target) -> Iterator[Answer]:
        """Start one; yields what is said at once."""
        attempt = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        number = attempt.connect_ex(target)
        if number != errno.EINPROGRESS:
            attempt.close()
            yield target, _said(number)
            return
        self.waiting[attempt.fileno()] = attempt, target
        self.due.append((time.monotonic() + self.wait, attempt.fileno()))
        self.poll.register(attempt, select.EPOLLOUT)

    def answers(self, seconds: float) -> Iterator[Answer]:
        """Those that come within so many seconds; gives up those that were waited for enough."""
        until = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            found = self.poll.poll(max(0.0, until - now), BURST)
            for descriptor, _ in found:
                attempt, target = self.waiting[descriptor]
                yield target, _said(attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
                # Its number stays taken until it is due, so that no other is mistaken for it.
                self.poll.unregister(attempt)
            if len(found) == BURST:
                # More may have come while we were not looking: that is no silence.
                continue
            while self.due and self.due[0][0] <= now:
                self.waiting.pop(self.due.popleft()[1])[0].close()
            if now >= until:
                return


def scan_tcp(
    addresses: Iterable[str], ports: Iterable[int] = PORTS, wait: float = WAIT_SECONDS
) -> Iterator[Answer]:
    """Try to connect to every port of every address.

    Returns:
        What answered: `open`, or the name of the error, such as `ECONNREFUSED`.
    """
    attempts = Attempts(wait)
    targets = iter([(address, port) for port in ports for address in addresses])
    while part := list(islice(targets, BURST)):
        began = time.monotonic()
        for target in part:
            yield from attempts.begin(target)
        yield from attempts.answers(max(0.0, began + len(part) / PER_SECOND - time.monotonic()))
    yield from attempts.answers(wait)
    attempts.poll.close()


def scan_udp(addresses: Iterable[str], ports: Iterable[int] = UDP_PORTS) -> Iterator[Answer]:
    """Send a byte to ports of every address.

    Returns:
        What answered: `open`, or the name of the error, such as `ECONNREFUSED`. A host sends few
        of those in a second, so a closed port may say nothing.
    """
    asked = {}
    for target in product(addresses, ports):
        asked[target] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        asked[target].connect(target)
        with suppress(ConnectionRefusedError):
            asked[target].send(b"?")
    time.sleep(WAIT_SECONDS)
    for target, attempt in asked.items():
        try:
            attempt.recv(1)
        except BlockingIOError:
            continue
        except OSError as error:
            yield target, _said(error.errno or 0)
        else:
            yield target, "open"
        finally:
            attempt.close()


def _said(number: int) -> str:
    return errno.errorcode[number] if number else "open"


def report(addresses: list[str], ports: Iterable[int], wait: float) -> dict[str, dict[str, Any]]:
    """Scan addresses, and sort what answered."""
    tcp, udp = dict(scan_tcp(addresses, ports, wait)), dict(scan_udp(addresses))
    return {
        address: {
            "open": [port for (one, port), said in tcp.items() if (one, said) == (address, "open")],
            "otherwise": Counter(
                said for (one, _), said in tcp.items() if one == address and said != "open"
            ),
            "udp": {port: said for (one, port), said in udp.items() if one == address},
        }
        for address in addresses
    }


def main() -> None:
    """Scan the addresses of the command line and print what answered."""
    parser = ArgumentParser()
    parser.add_argument("addresses", nargs="+")
    parser.add_argument("--ports", type=int, nargs="+", default=PORTS, help="all when not given")
    parser.add_argument("--wait", type=float, default=WAIT_SECONDS, help="for a TCP port")
    words = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(json.dumps(report(words.addresses, words.ports, words.wait)))


if __name__ == "__main__":
    main()
