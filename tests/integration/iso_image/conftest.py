"""One small image, built and signed once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from iso import squash
from iso.build import Inputs, build
from iso.cache import Cache
from iso.keys import Keys, make
from iso.lock import LOCK_FILE, Lock
from iso.root import node_root
from iso.sbom import Component
from iso.signing import Signatures, attach, sign
from iso.source import Source
from iso.times import Times
from iso.tools import tools_tree
from iso.unsigned import Unsigned
from lab.paths import cache_folder
from tests.integration.iso_image.small import small_root

SOURCE = Source("0.1.0", "c0ffee", 1_790_000_000)
COMPONENTS = (Component("deb", "busybox-static", "1:1.37.0-6", "ab" * 32, "busybox.deb"),)


@dataclass(frozen=True)
class Made:
    """A small image and all that it was made with."""

    folder: Path
    tools: Path
    root: Path
    inputs: Inputs
    keys: Keys
    unsigned: Unsigned
    signatures: Signatures
    image: Path


@pytest.fixture(scope="session")
def trees() -> tuple[Path, Path]:
    """The tools tree and the node root of this checkout's lock."""
    lock, cache = Lock.read(), Cache(cache_folder())
    return tools_tree(lock, cache), node_root(lock, cache)


@pytest.fixture(scope="session")
def made(trees: tuple[Path, Path]) -> Iterator[Made]:
    """A small image, signed with test keys."""
    tools, whole = trees
    with TemporaryDirectory(prefix="ppn-iso-test-") as name:
        folder = Path(name)
        root = small_root(whole, folder / "root")
        squash.pack(root, folder / "packed", tools=tools, epoch=SOURCE.epoch)
        keys = make(folder / "keys", tools, test=True, passphrase=None)
        inputs = Inputs(
            root=root,
            packed=folder / "packed",
            tools=tools,
            lock=LOCK_FILE,
            source=SOURCE,
            components=COMPONENTS,
            output=folder / "out/unsigned",
            keys=keys.public,
        )
        unsigned = build(inputs, Times())
        signatures = sign(unsigned, keys, tools, folder / "out/signatures", None)
        image, _ = attach(unsigned, signatures, tools, folder / "out", Times())
        yield Made(folder, tools, root, inputs, keys, unsigned, signatures, image)
