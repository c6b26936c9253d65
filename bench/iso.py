"""The provisioning image: cold and warm builds and its size, against Debian's live-build."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.live_build import LiveBuild
from bench.result import Result, times_faster
from iso.build import build_iso
from iso.root import node_recipe
from iso.stage import inputs_from_lock
from iso.times import Times
from iso.trees import remove

FASTER = 2.0


@dataclass(frozen=True)
class Built:
    """A build of ours.

    Args:
        seconds: all of it.
        steps: seconds of each step.
        size: bytes of the image.
    """

    seconds: float
    steps: dict[str, float]
    size: int


def measure(runs: int) -> Result:
    """Build both images once with nothing kept from before, then in pairs with what was kept.

    The peer gets the same packages and the same compression. Its own tools are ready before its
    clock starts; ours are made in our cold build.

    Args:
        runs: how many warm pairs.

    Raises:
        PpnError: the archive cannot be reached, or a build failed.
    """
    with scratch() as folder:
        peer = LiveBuild(folder / "live-build", node_recipe().packages)
        peer.prepare()
        cold_peer = peer.build()
        cold = ours(folder)
        print(f"cold: ours {cold.seconds:.1f} s {cold.steps}, peer {cold_peer:.1f} s", flush=True)
        warm, warm_peer = [], []
        for pair in range(runs):
            warm.append(ours(folder))
            peer.clean()
            warm_peer.append(peer.build())
            print(
                f"pair {pair + 1}: ours {warm[-1].seconds:.1f} s {warm[-1].steps}, peer"
                f" {warm_peer[-1]:.1f} s",
                flush=True,
            )
        found = times_faster("iso", [one.seconds for one in warm], warm_peer, aim=FASTER)
        sizes = {"ours_mib": mib(warm[-1].size), "peer_mib": mib(peer.size())}
    steps = {f"warm_{name}_s": seconds for name, seconds in warm[-1].steps.items()}
    figures = {"ours_cold_s": round(cold.seconds, 1), "peer_cold_s": round(cold_peer, 1)}
    return replace(
        found,
        aim=f"{found.aim} when warm, and no larger",
        met=found.met and sizes["ours_mib"] <= sizes["peer_mib"],
        figures={**figures, **sizes, **steps},
    )


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder with a cache of its own for a block: nothing that was built before is in it."""
    before = os.environ.get("PPN_CACHE")
    with tempfile.TemporaryDirectory(prefix="ppn-bench-iso-") as name:
        folder = Path(name)
        os.environ["PPN_CACHE"] = str(folder / "cache")
        try:
            yield folder
        finally:
            if before is None:
                del os.environ["PPN_CACHE"]
            else:
                os.environ["PPN_CACHE"] = before
            # Roots hold what only this removes without leaving their file system.
            remove(folder / "cache")
            remove(folder / "live-build")


def ours(folder: Path) -> Built:
    """Build our image, unsigned, from the lock."""
    output, times = folder / "ours", Times()
    start = time.monotonic()
    inputs = inputs_from_lock(output=output / "unsigned", keys=None, site=None, times=times)
    _, image, _ = build_iso(inputs, output, times)
    return Built(time.monotonic() - start, dict(times.seconds), image.stat().st_size)


def mib(size: int) -> float:
    """Bytes in MiB."""
    return round(size / 2**20, 1)
