"""The node software as one archive: ppn and every dependency, installed from wheels locked by hash.

Unpacked on the operator's machine, once for each lock and source tree, so that a node needs no
network and no pip: it gets a folder for its virtual environment.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import os
import sys
import tarfile
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from ppn.durable import write_atomic
from ppn.errors import PpnError
from ppn.run import run

REQUIREMENTS = "requirements.txt"
CHECKOUT = Path(__file__).resolve().parent.parent
PYTHON_OF_DEBIAN = {"12": "3.11", "13": "3.13"}
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_28_x86_64", "manylinux_2_34_x86_64")

_one_at_a_time = threading.Lock()


class WheelhouseError(PpnError):
    """The archive of node software could not be built."""

    code = "wheelhouse_failed"


@dataclass(frozen=True)
class Wheelhouse:
    """An archive of installed wheels; `digest` names its content and is what a node records."""

    archive: Path
    digest: str


def wheelhouse(python: str) -> Wheelhouse:
    """The archive for nodes with a given Python; built if the cache has none.

    Args:
        python: the node's Python, for example `3.13`.

    Raises:
        WheelhouseError: uv is missing.
        CommandFailed: a locked wheel cannot be had, or ppn's own cannot be built.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    digest = source_digest(python)
    archive = folder / f"{digest}.tar.gz"
    # The file lock is for other processes; waiting for it inside this one would stop every host.
    with _one_at_a_time, (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            write_atomic(archive, build(python))
    return Wheelhouse(archive, digest)


def cache_folder() -> Path:
    """Where archives are kept between runs."""
    base = os.environ.get("PPN_CACHE") or Path.home() / ".cache" / "ppn"
    return Path(base) / "wheelhouse"


def source_digest(python: str) -> str:
    """A name for everything that decides what the archive holds."""
    digest = hashlib.sha256(python.encode())
    sources = sorted(path for path in (CHECKOUT / "ppn").rglob("*") if is_source(path))
    for path in [CHECKOUT / "uv.lock", CHECKOUT / "pyproject.toml", Path(__file__), *sources]:
        digest.update(f"\0{path.relative_to(CHECKOUT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:20]


def is_source(path: Path) -> bool:
    """Whether a path is part of the wheel, and not what Python left beside it."""
    return path.is_file() and "__pycache__" not in path.parts


def build(python: str) -> bytes:
    """The site-packages folder of a node, as the bytes of a compressed tar archive."""
    locked = dependencies(python)
    with tempfile.TemporaryDirectory(prefix="ppn-software-") as name:
        folder = Path(name)
        run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
            timeout=300,
            cwd=CHECKOUT,
        )
        wheel = next(folder.glob("ppn-*.whl"))
        own = hashlib.sha256(wheel.read_bytes()).hexdigest()
        requirements = (locked / REQUIREMENTS).read_text(encoding="utf-8")
        (folder / REQUIREMENTS).write_text(
            f"{requirements}./{wheel.name} --hash=sha256:{own}\n", encoding="utf-8"
        )
        run(install_command(python, locked, folder), timeout=300, cwd=folder)
        return pack(folder / "site")


def install_command(python: str, locked: Path, folder: Path) -> list[str | Path]:
    """The call that unpacks the locked wheels and ppn's own for a node's Python."""
    # fmt: off
    return [
        sys.executable, "-m", "pip", "install", "-q",
        "--disable-pip-version-check",
        "--no-index",
        "--find-links", locked,
        "--no-deps",
        "--no-compile",
        *for_node(python),
        "-r", REQUIREMENTS,
        "--target", folder / "site",
    ]
    # fmt: on


def for_node(python: str) -> list[str]:
    """The options by which pip takes wheels for a node rather than for this machine."""
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    return [
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--python-version",
        python,
        *platforms,
    ]


def dependencies(python: str) -> Path:
    """A folder with every locked wheel for a node's Python; the one step that needs a network.

    Args:
        python: the node's Python, for example `3.13`.

    Raises:
        WheelhouseError: uv is missing.
        CommandFailed: a locked wheel cannot be had.
    """
    lock = hashlib.sha256(python.encode() + (CHECKOUT / "uv.lock").read_bytes()).hexdigest()
    folder = cache_folder() / f"locked-{lock[:20]}"
    if folder.is_dir():
        return folder
    uv = CHECKOUT / ".tools" / "uv" / "bin" / "uv"
    if not uv.exists():
        raise WheelhouseError(f"{uv.relative_to(CHECKOUT)} is missing", hint="run scripts/setup")
    cache_folder().mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".locked-", dir=cache_folder()))
    requirements = staging / REQUIREMENTS
    run(
        [uv, "export", "-q", "--frozen", "--no-dev", "--no-emit-project", "-o", requirements],
        timeout=120,
        cwd=CHECKOUT,
    )
    run(download_command(python, requirements, staging), timeout=900, cwd=CHECKOUT)
    staging.rename(folder)
    return folder


def download_command(python: str, requirements: Path, folder: Path) -> list[str | Path]:
    """The call that fetches every locked wheel for a node's Python."""
    # fmt: off
    return [
        sys.executable, "-m", "pip", "download", "-q",
        "--disable-pip-version-check",
        *for_node(python),
        "-r", requirements,
        "-d", folder,
    ]
    # fmt: on


def pack(folder: Path) -> bytes:
    """A folder as a compressed tar archive that depends on names and contents alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        # pip's own scripts name the interpreter of this machine; the node gets its own.
        for path in sorted(path for path in folder.rglob("*") if is_source(path)):
            name = path.relative_to(folder)
            if name.parts[0] == "bin" or name.name in ("RECORD", "direct_url.json"):
                continue
            entry = tarfile.TarInfo(str(name))
            content = path.read_bytes()
            entry.size = len(content)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)
