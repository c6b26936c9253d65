"""Facts about the capability ledger on a node, read with common tools: ppn need not be there."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from pyinfra.api import FactBase, QuoteString, StringCommand
from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

LEDGER = "/var/lib/ppn/ledger.jsonl"
OPERATOR_KEY = "/etc/ppn/operator.pub"

# PPN_ROOT moves the node's files, as it does for ppn itself. `set -e` makes a file that cannot be
# read an error of the whole fact rather than a file that looks absent.
SCRIPT = rf"""set -eu
ledger="${{PPN_ROOT:-}}{LEDGER}"; key="${{PPN_ROOT:-}}{OPERATOR_KEY}"
digest() {{ sum=$(sha256sum < "$1"); echo "${{sum%% *}}"; }}
if [ -e "$ledger" ] || [ -L "$ledger" ]; then
  size=$(wc -c < "$ledger"); all=$(digest "$ledger")
  last=$(tail -n 1 "$ledger" | sha256sum)
  echo "ledger $size $all ${{last%% *}}"
else echo "ledger absent"; fi
if [ -e "$key" ] || [ -L "$key" ]; then all=$(digest "$key"); echo "key $all"
else echo "key absent"; fi"""

COPY_SCRIPT = rf"""set -eu
echo start
base64 -w 0 < "${{PPN_ROOT:-}}{LEDGER}"
echo"""

LEDGER_LINE = re.compile(r"ledger (?:absent|([0-9]+) ([0-9a-f]{64}) ([0-9a-f]{64}))")
KEY_LINE = re.compile(r"key (?:absent|([0-9a-f]{64}))")


@dataclass(frozen=True)
class LedgerFile:
    """A node's ledger file: bytes, SHA-256 of all of it, and head (SHA-256 of its last line)."""

    size: int
    sha256: str
    head: str


@dataclass(frozen=True)
class NodeLedger:
    """What a node has: its ledger and the SHA-256 of the operator's key file; None = absent."""

    ledger: LedgerFile | None
    key_sha256: str | None


class LedgerOnNode(FactBase[NodeLedger | None]):
    """Size, digest and head of the node's ledger, and the digest of the key it trusts.

    Returns:
        `NodeLedger`, or `None` when they could not be read.

    Example:
        `host.get_fact(LedgerOnNode)`
    """

    @override
    @staticmethod
    def default() -> NodeLedger | None:
        return None

    @override
    def command(self) -> StringCommand:
        return StringCommand("sh", "-c", QuoteString(SCRIPT))

    @override
    def process(self, output: list[str]) -> NodeLedger | None:
        return parse(output)


class LedgerCopy(FactBase[bytes | None]):
    """The node's whole ledger, byte for byte; `None` when it could not be read or is absent.

    Example:
        `host.get_fact(LedgerCopy)`
    """

    @override
    @staticmethod
    def default() -> bytes | None:
        return None

    @override
    def command(self) -> StringCommand:
        return StringCommand("sh", "-c", QuoteString(COPY_SCRIPT))

    @override
    def process(self, output: list[str]) -> bytes | None:
        try:
            return base64.b64decode("".join(output[1:]), validate=True)
        except binascii.Error as error:
            raise FactProcessError(f"the copy of {LEDGER} is not base64: {error}") from error


def parse(output: list[str]) -> NodeLedger:
    """The script's two lines as values.

    Raises:
        FactProcessError: they are not of the expected form.
    """
    lines = [line.strip() for line in output if line.strip()]
    ledger = LEDGER_LINE.fullmatch(lines[0]) if len(lines) == 2 else None
    key = KEY_LINE.fullmatch(lines[1]) if len(lines) == 2 else None
    if ledger is None or key is None:
        raise FactProcessError(f"unexpected output of the ledger script: {output!r}")
    size, sha256, head = ledger.groups()
    return NodeLedger(None if size is None else LedgerFile(int(size), sha256, head), key.group(1))
