"""Which source an image is made of, and the one time that everything in it bears."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import ppn
from iso.errors import IsoError
from ppn.run import CommandFailed, run

CHECKOUT = Path(__file__).resolve().parent.parent
# What decides the image's bytes; a commit that touches none of it makes the same image.
PARTS = (
    "deploys/wheelhouse.py",
    "iso",
    "operations/install_software.sh",
    "ppn",
    "pyproject.toml",
    "uv.lock",
)


@dataclass(frozen=True)
class Source:
    """A state of ppn's source.

    Args:
        version: of ppn.
        commit: the last one that touched what goes in.
        epoch: its time, in seconds since 1970.
    """

    version: str
    commit: str
    epoch: int


def source_of(checkout: Path = CHECKOUT) -> Source:
    """The source of a checkout.

    Args:
        checkout: its folder.

    Raises:
        IsoError: it is no git repository, or none that reaches back far enough.
    """
    # Root may build what another user has checked out.
    git = ["git", "-c", f"safe.directory={checkout}", "-C", str(checkout)]
    try:
        said = run([*git, "log", "-1", "--format=%H %ct", "--", *PARTS], timeout=60).stdout.split()
        changed = run([*git, "status", "--porcelain", "--", *PARTS], timeout=60).stdout.strip()
    except CommandFailed as error:
        raise IsoError(
            f"{checkout} is no git checkout: {error.message}",
            code="checkout_needed",
            hint="build from a clone, whose commit the image then names",
        ) from error
    if len(said) != 2:
        raise IsoError(
            f"{checkout} has no commit of the image's parts", hint="clone it with its history"
        )
    commit, epoch = said
    return Source(ppn.__version__, f"{commit}+changes" if changed else commit, int(epoch))
