"""Names what was done to a log, from the hashes it should have and those it has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a log.

    Args:
        code: stable name of this kind of damage.
        message: what is wrong, naming the file or entry.
        index: of the first entry concerned, where one is.
    """

    code: str
    message: str
    index: int | None = None

    def as_dict(self) -> dict[str, object]:
        """The finding as plain data."""
        fields: dict[str, object] = {"code": self.code, "message": self.message}
        return fields if self.index is None else fields | {"index": self.index}


def damage(published: list[bytes], found: list[bytes], start: int) -> Finding:
    """What happened to entries.

    Args:
        published: the hashes of all entries that were published.
        found: those of the journal's lines from an entry on, whatever they are.
        start: the index of that entry; those before it are sound.
    """
    expected = published[start:]
    pairs = zip(expected, found, strict=False)
    first = next((i for i, (old, new) in enumerate(pairs) if old != new), None)
    if first is None:
        return _same_as_far_as_both_go(published, found, start)
    index = start + first
    other = expected.index(found[first]) if found[first] in expected else None
    if other is not None and found[other : other + 1] == expected[first : first + 1]:
        text = f"entries {index} and {start + other} were exchanged"
        return Finding("audit_entries_swapped", text, index)
    if found[first : first + 2] == expected[first + 1 : first + 3]:
        return Finding("audit_entry_deleted", f"entry {index} was taken out", index)
    if found[first + 1 : first + 2] == expected[first : first + 1]:
        if found[first] in published:
            return Finding("audit_entry_duplicated", f"entry {index} is another's copy", index)
        return Finding("audit_entry_inserted", f"entry {index} was put in", index)
    return Finding("audit_entry_altered", f"entry {index} was altered", index)


def _same_as_far_as_both_go(published: list[bytes], found: list[bytes], start: int) -> Finding:
    index = start + len(found)
    if index < len(published):
        gone = len(published) - index
        return Finding("audit_truncated", f"the last {gone} published entries are gone", index)
    behind = found[len(published) - start :]
    if behind and behind[0] in published:
        index = len(published)
        return Finding("audit_entry_duplicated", f"entry {index} is another's copy", index)
    return Finding("audit_commit_damaged", "the line that ends a batch was altered", start)
