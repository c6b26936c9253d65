"""Where an image comes from: an in-toto statement with SLSA's provenance, version 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iso.manifest import Entry
from iso.source import Source

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:ppn:iso:build:1"
BUILDER = "urn:ppn:iso:builder"


def statement(
    source: Source, lock_sha256: str, subjects: Mapping[str, Entry], given: Mapping[str, Entry]
) -> dict[str, Any]:
    """The statement. It names no machine, person or time: anyone who builds makes the same one.

    Args:
        source: what was built.
        lock_sha256: of the lock of packages, in hex.
        subjects: what was made of it, by name.
        given: what the builder added to it, such as public keys, by name.
    """
    dependencies: list[dict[str, Any]] = [
        {"name": "iso/packages.lock", "digest": {"sha256": lock_sha256}},
        {"name": "ppn", "digest": {"gitCommit": source.commit}},
    ]
    return {
        "_type": STATEMENT,
        "subject": [_described(name, entry) for name, entry in sorted(subjects.items())],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "commit": source.commit,
                    "lock": lock_sha256,
                    "given": [_described(name, entry) for name, entry in sorted(given.items())],
                },
                "internalParameters": {"sourceDateEpoch": source.epoch},
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"ppn": source.version}},
                "metadata": {"invocationId": f"{source.commit}/{lock_sha256[:16]}"},
            },
        },
    }


def _described(name: str, entry: Entry) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": entry.sha256}}
