"""The log as files for readers: hashes and entries in tiles of 256 (C2SP tlog-tiles).

All of them follow from the journal. A full tile never changes; a partial one carries its width in
its name, so that it never changes either.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ppn.audit.merkle import HASH_BYTES, Frontier, node_hash, root_of

WIDTH = 256
LEVELS = 8
FOLDER = "tile"
ENTRIES = "entries"


class TileUnusable(Exception):
    """A tile that is missing or has another length; holds its path."""


def tile_path(level: int | str, number: int, width: int = WIDTH) -> str:
    """The path of a tile below the log's folder.

    Args:
        level: of hashes, or `entries`.
        number: of the tile within its level.
        width: how many it has.
    """
    parts = [f"{number % 1000:03d}"]
    while number := number // 1000:
        parts.append(f"x{number % 1000:03d}")
    partial = f".p/{width}" if width < WIDTH else ""
    return f"{FOLDER}/{level}/{'/'.join(reversed(parts))}{partial}"


def bundle(entries: Sequence[bytes]) -> bytes:
    """Entries as one tile holds them, each behind its length."""
    return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)


def unbundle(data: bytes) -> list[bytes] | None:
    """The entries of a tile, None when it is none."""
    found, place = [], 0
    while place < len(data):
        end = place + 2 + int.from_bytes(data[place : place + 2], "big")
        if end > len(data):
            return None
        found.append(data[place + 2 : end])
        place = end
    return found


@dataclass
class Tiler:
    """Makes tiles of entries as they come.

    Args:
        size: how many came so far.
        entries: of the last bundle, as long as it is partial.
        rows: per level the hashes of its last tile, as long as it is partial.
    """

    size: int = 0
    entries: list[bytes] = field(default_factory=list)
    rows: list[list[bytes]] = field(default_factory=list)

    def add(self, entries: Sequence[bytes], leaves: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
        """Take entries, and give each tile that they fill: its path and content.

        Args:
            entries: their bytes.
            leaves: their hashes.
        """
        place = 0
        while place < len(entries):
            room = WIDTH - self.size % WIDTH
            taken = leaves[place : place + room]
            self.entries += entries[place : place + room]
            self.size += len(taken)
            place += len(taken)
            if len(self.entries) == WIDTH:
                yield tile_path(ENTRIES, self.size // WIDTH - 1), bundle(self.entries)
                self.entries = []
            yield from self._push(0, taken)

    def partials(self) -> Iterator[tuple[str, bytes]]:
        """The tiles at the right edge that are not full."""
        if self.entries:
            yield (
                tile_path(ENTRIES, self.size // WIDTH, len(self.entries)),
                bundle(self.entries),
            )
        for level, row in enumerate(self.rows):
            if row:
                yield self._path(level, len(row)), b"".join(row)

    def tree(self) -> Frontier:
        """The tree over what came so far."""
        made = Frontier(self.size)
        for row in reversed(self.rows):
            place = 0
            while place < len(row):
                step = 1 << ((len(row) - place).bit_length() - 1)
                made.peaks.append(root_of(row[place : place + step]))
                place += step
        return made

    def _push(self, level: int, hashes: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
        if level == len(self.rows):
            self.rows.append([])
        row = self.rows[level]
        row += hashes
        if len(row) == WIDTH:
            yield tile_path(level, self._number(level) - 1), b"".join(row)
            self.rows[level] = []
            yield from self._push(level + 1, [root_of(row)])

    def _path(self, level: int, width: int) -> str:
        return tile_path(level, self._number(level), width)

    def _number(self, level: int) -> int:
        """How many full tiles a level has."""
        return self.size >> (LEVELS * (level + 1))


@dataclass
class Tiles:
    """Reads the tiles of a log at one of its published sizes.

    Args:
        folder: the log's.
        size: how many entries the tree has.
    """

    folder: Path
    size: int
    _kept: dict[str, bytes] = field(default_factory=dict)

    def node(self, level: int, index: int) -> bytes:
        """The hash of the perfect subtree of 2**level leaves at an index of that level.

        Raises:
            TileUnusable: the tile that has it cannot be read.
        """
        row, within = divmod(level, LEVELS)
        start = index << within
        number, place = divmod(start, WIDTH)
        hashes = self.row(row, number)[place : place + (1 << within)]
        while len(hashes) > 1:
            pairs = zip(hashes[::2], hashes[1::2], strict=True)
            hashes = [node_hash(left, right) for left, right in pairs]
        return hashes[0]

    def row(self, level: int, number: int) -> list[bytes]:
        """The hashes of a tile.

        Raises:
            TileUnusable: it is missing, or has another length.
        """
        width = min((self.size >> (LEVELS * level)) - number * WIDTH, WIDTH)
        data = self._read(tile_path(level, number, width), tile_path(level, number))
        data = data[: width * HASH_BYTES]
        if len(data) != width * HASH_BYTES:
            raise TileUnusable(tile_path(level, number, width))
        return [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]

    def entries(self, number: int) -> list[bytes]:
        """The entries of a bundle.

        Raises:
            TileUnusable: it is missing, or is none.
        """
        width = min(self.size - number * WIDTH, WIDTH)
        path = tile_path(ENTRIES, number, width)
        found = unbundle(self._read(path, tile_path(ENTRIES, number)))
        if found is None or len(found) < width:
            raise TileUnusable(path)
        return found[:width]

    def entry(self, index: int) -> bytes:
        """An entry.

        Raises:
            TileUnusable: the bundle that has it cannot be read.
        """
        return self.entries(index // WIDTH)[index % WIDTH]

    def tiler(self) -> Tiler:
        """What goes on from here.

        Raises:
            TileUnusable: a tile at the right edge cannot be read.
        """
        made = Tiler(self.size)
        if self.size % WIDTH:
            made.entries = self.entries(self.size // WIDTH)
        level = 0
        while (count := self.size >> (LEVELS * level)) > 0:
            made.rows.append(self.row(level, count // WIDTH) if count % WIDTH else [])
            level += 1
        return made

    def leaves(self) -> Iterator[bytes]:
        """The hashes of all entries.

        Raises:
            TileUnusable: a tile cannot be read.
        """
        for number in range(-(-self.size // WIDTH)):
            yield from self.row(0, number)

    def _read(self, path: str, full: str) -> bytes:
        """A tile's content; a partial one gives way to the full one that has replaced it."""
        for one in dict.fromkeys((path, full)):
            if one in self._kept:
                return self._kept[one]
            try:
                data = (self.folder / one).read_bytes()
            except OSError:
                continue
            if len(self._kept) >= WIDTH:
                self._kept.clear()
            self._kept[one] = data
            return data
        raise TileUnusable(path)
