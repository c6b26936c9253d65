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
    # The order in which the initial RAM disk loads its drivers, and how they are unpacked.
    "lab/modules.py",
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
        commit: the last one that touched what goes in; `+changes` after it says that files are not
            as it has them, `+shallow` that the history was cut off, and it may be a later one.
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
        IsoError: it is no git repository, or none with a commit of the parts.
    """
    # Root may build what another user has checked out.
    git = ["git", "-c", f"safe.directory={checkout}", "-C", str(checkout)]
    try:
        said = run([*git, "log", "-1", "--format=%H %ct", "--", *PARTS], timeout=60).stdout.split()
        # Ignored files too: whatever lies below `ppn` goes in.
        status = ["status", "--porcelain", "--untracked-files=all", "--ignored", "--", *PARTS]
        changed = run([*git, *status], timeout=60).stdout.splitlines()
        path = run([*git, "rev-parse", "--git-path", "shallow"], timeout=60).stdout.strip()
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
    # Git takes the first commit of a cut history for one that touched every file.
    cut = checkout / path
    marks = "+shallow" if cut.exists() and commit in cut.read_text(encoding="ascii") else ""
    marks += "+changes" if any("__pycache__" not in line for line in changed) else ""
    return Source(ppn.__version__, commit + marks, int(epoch))
