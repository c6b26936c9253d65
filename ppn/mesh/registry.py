"""The peer registry: which public key each node of the pool has.

A JSON file beside the inventory, `{"node": "public key"}`, sorted, to be reviewed and committed. It
works like SSH's known_hosts: a first key is recorded, another key for a known node is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from ppn.durable import write_atomic
from ppn.errors import PpnError, Refusal
from ppn.lock import folder_lock

KEY_BYTES = 32
NO_KEYS: Mapping[str, str] = MappingProxyType({})


class RegistryDamaged(PpnError):
    """A registry file that cannot be read, or whose content is no registry."""

    code = "registry_damaged"


class KeyInvalid(PpnError):
    """A text that is no WireGuard public key."""

    code = "key_invalid"


@dataclass(frozen=True)
class Registry:
    """Public keys by node name."""

    keys: Mapping[str, str] = field(default_factory=lambda: NO_KEYS)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", MappingProxyType(dict(self.keys)))

    def with_key(self, node: str, key: str) -> Registry:
        """This registry with one more key (MESH-04).

        Args:
            node: the node's name.
            key: its public key, base64.

        Raises:
            KeyInvalid: the text is no public key.
            Refusal: the node has another key (`key_changed`), or the key is another node's
                (`key_shared`).
        """
        check_key(key, node)
        known = self.keys.get(node)
        if known is not None and known != key:
            raise Refusal(
                f"node {node} shows the WireGuard key {key}, but {known} is recorded",
                code="key_changed",
                constraint="peer registry",
                hint=f"if {node} was installed anew on purpose, remove its line from the peer"
                " registry and run again",
            )
        owner = next((name for name, one in self.keys.items() if one == key), node)
        if owner != node:
            raise Refusal(
                f"node {node} shows the WireGuard key {key}, which is recorded for {owner}",
                code="key_shared",
                constraint="peer registry",
                hint=f"one was cloned from the other: remove the key file on {node}, or the line of"
                f" {owner} if that node is gone, and run again",
            )
        return Registry({**self.keys, node: key})


def is_key(text: str) -> bool:
    """Whether a text is the base64 form of 32 bytes, as WireGuard writes a key."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(key) == KEY_BYTES and base64.b64encode(key).decode() == text


def check_key(text: str, node: str) -> None:
    """Refuse a text that is not the base64 form of 32 bytes.

    Raises:
        KeyInvalid: with the node's name and the text.
    """
    if not is_key(text):
        raise KeyInvalid(
            f"node {node}: {text!r} is no WireGuard public key",
            hint="a key is 44 characters, as `wg pubkey` prints it",
        )


def parse(text: str, source: str) -> Registry:
    """A registry from its file's text.

    Args:
        text: the file's content.
        source: the file's name, for errors.

    Raises:
        RegistryDamaged: no JSON object of names and keys, or one key for two nodes.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise RegistryDamaged(f"{source} is no JSON: {error}", hint=RESTORE) from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data.values()):
        raise RegistryDamaged(f"{source} is no object of node names and keys", hint=RESTORE)
    registry = Registry()
    for node, key in data.items():
        try:
            registry = registry.with_key(node, key)
        except PpnError as error:
            raise RegistryDamaged(f"{source}: {error.message}", hint=RESTORE) from error
    return registry


RESTORE = "restore the file from version control, or remove the line at fault and run again"


def render(registry: Registry) -> str:
    """The registry file's text: sorted by name, one line a node."""
    return json.dumps(dict(sorted(registry.keys.items())), indent=2) + "\n"


def load(path: Path) -> Registry:
    """Read a registry file; one that does not exist is empty.

    Raises:
        RegistryDamaged: not readable, or not a registry.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Registry()
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryDamaged(f"cannot read {path}: {error}", hint=RESTORE) from error
    return parse(text, str(path))


def record(path: Path, node: str, key: str) -> bool:
    """Add a node's key to a registry file, once; several runs may do so at the same time.

    Returns:
        Whether the file changed.

    Raises:
        PpnError: the registry is damaged, the key is invalid, or the node has another key.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with folder_lock(path.parent):
            before = load(path)
            after = before.with_key(node, key)
            if after == before:
                return False
            write_atomic(path, render(after).encode())
            return True
    except OSError as error:
        raise RegistryDamaged(f"cannot write {path}: {error}") from error
