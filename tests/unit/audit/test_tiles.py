"""Tiles where C2SP tlog-tiles wants them, and whole after every resumption."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppn.audit.merkle import consistency, inclusion, leaf_hash, node_of, root_of
from ppn.audit.publish import Publisher
from ppn.audit.tiles import Tiler, Tiles, TileUnusable, bundle, tile_path, unbundle
from tests.unit.audit.samples import SIGNER, encoded, make_log


def test_paths_are_those_of_the_specification() -> None:
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tile_path("entries", 0) == "tile/entries/000"
    assert tile_path(2, 1000, 17) == "tile/2/x001/000.p/17"


@pytest.mark.exhaustive
def test_a_tree_of_70000_has_the_tiles_of_the_specification() -> None:
    """273 full tiles at level 0 and one of 112; one full at level 1 and one of 17; one of 1."""
    tiler, full = Tiler(), []
    entries = [number.to_bytes(3, "big") for number in range(70_000)]
    for start in range(0, 70_000, 977):
        some = entries[start : start + 977]
        full += [path for path, _ in tiler.add(some, [leaf_hash(one) for one in some])]
    assert sum(path.startswith("tile/0/") for path in full) == 273
    assert sum(path.startswith("tile/entries/") for path in full) == 273
    assert [path for path in full if path.startswith("tile/1/")] == ["tile/1/000"]
    assert [path for path, _ in tiler.partials()] == [
        "tile/entries/273.p/112",
        "tile/0/273.p/112",
        "tile/1/001.p/17",
        "tile/2/000.p/1",
    ]
    assert tiler.tree().root() == root_of(leaf_hash(one) for one in entries)


def test_bundles_come_back() -> None:
    entries = encoded(5)
    assert unbundle(bundle(entries)) == entries
    assert unbundle(bundle(entries)[:-1]) is None
    assert unbundle(b"") == []


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 700 entries, published many times on the way."""
    folder = tmp_path_factory.mktemp("audit") / "log"
    make_log(folder, (100, 155, 1, 1, 255, 88, 100))
    return folder


def test_proofs_from_tiles_are_those_from_the_leaves(large: Path) -> None:
    leaves = [leaf_hash(one) for one in encoded(700)]
    tiles = Tiles(large, 700)
    assert list(tiles.leaves()) == leaves
    assert [tiles.entry(index) for index in (0, 255, 256, 699)] == [
        encoded(700)[index] for index in (0, 255, 256, 699)
    ]
    for index in (0, 1, 255, 256, 511, 512, 699):
        expected = inclusion(node_of(leaves), index, 700)
        assert inclusion(tiles.node, index, 700) == expected
    for old in (1, 100, 256, 257, 512, 699):
        assert consistency(tiles.node, old, 700) == consistency(node_of(leaves), old, 700)
    assert consistency(Tiles(large, 600).node, 257, 600) == consistency(
        node_of(leaves[:600]), 257, 600
    )


def test_a_full_tile_takes_the_place_of_its_partial_ones(large: Path) -> None:
    assert not (large / "tile/0/000.p").exists() and (large / "tile/0/000").exists()
    # What was published at 100 entries can still be had.
    assert Tiles(large, 100).tiler().tree().root() == root_of(
        leaf_hash(one) for one in encoded(100)
    )
    with pytest.raises(TileUnusable):
        Tiles(large, 5000).entry(4999)


@pytest.mark.parametrize("sizes", [(1,), (255,), (256,), (257,), (512,), (3, 253, 256, 1)])
def test_a_publisher_takes_up_where_another_left_off(tmp_path: Path, sizes: tuple[int]) -> None:
    make_log(tmp_path / "log", sizes)
    publisher = Publisher(tmp_path / "log", SIGNER)
    at = publisher.resume()
    entries = encoded(sum(sizes))
    assert at.size == len(entries)
    assert at.end == (tmp_path / "log/journal").stat().st_size
    assert at.tree.root() == root_of(leaf_hash(one) for one in entries)
