"""The node software as two archives: the packages locked by hash, and ppn's own code.

Unpacked on the operator's machine, once for each lock and source tree, so that a node needs no
network and no pip. The packages change seldom: nodes keep them, and get what ppn changed alone.
"""

from __future__ import annotations

import fcntl
import functools
import gzip
import hashlib
import io
import os
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ppn.durable import write_atomic
from ppn.errors import PpnError
from ppn.run import run

REQUIREMENTS = "requirements.txt"
CHECKOUT = Path(__file__).resolve().parent.parent
PYTHON_OF_DEBIAN = {"12": "3.11", "13": "3.13"}
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_28_x86_64", "manylinux_2_34_x86_64")
# Raise it when the same wheels become another layer on a node.
LAYER_VERSION = 1

_one_at_a_time = threading.Lock()


class WheelhouseError(PpnError):
    """The archive of node software could not be built."""

    code = "wheelhouse_failed"


@dataclass(frozen=True)
class Layer:
    """Files for a node as one archive; `digest` names its content and is what a node records."""

    archive: Path
    digest: str


@dataclass(frozen=True)
class Wheelhouse:
    """All a node needs of ppn.

    Args:
        dependencies: the locked third-party packages.
        release: ppn's own code; its digest stands for the packages too.
    """

    dependencies: Layer
    release: Layer


def wheelhouse(python: str) -> Wheelhouse:
    """The software for nodes with a given Python; built if the cache has none.

    Args:
        python: the node's Python, for example `3.13`.

    Raises:
        WheelhouseError: uv is missing.
        CommandFailed: a locked wheel cannot be had.
    """
    return Wheelhouse(dependencies_layer(python), release_layer(python))


def dependencies_layer(python: str, wheels: Path | None = None) -> Layer:
    """The locked packages for a node's Python.

    Args:
        python: the node's Python, for example `3.13`.
        wheels: a folder with every locked wheel; without it they are fetched, the one step that
            needs a network.

    Raises:
        WheelhouseError: uv is missing.
        CommandFailed: a locked wheel cannot be had, or is not the one that was locked.
    """
    digest = dependencies_digest(python)
    return kept(f"dependencies-{digest}", digest, lambda: build_dependencies(python, wheels))


def release_layer(python: str) -> Layer:
    """ppn's own code for a node's Python, to lie over the layer of its packages.

    Args:
        python: the node's Python, for example `3.13`.

    Raises:
        WheelhouseError: uv is missing.
    """
    digest = release_digest(python)
    return kept(f"release-{digest}", digest, lambda: pack(own_files()))


def kept(name: str, digest: str, build: Callable[[], bytes]) -> Layer:
    """An archive of the cache, built when it has none of this name."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{name}.tar.gz"
    # The file lock is for other processes; waiting for it inside this one would stop every host.
    with _one_at_a_time, (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            write_atomic(archive, build())
    return Layer(archive, digest)


def cache_folder() -> Path:
    """Where archives are kept between runs."""
    base = os.environ.get("PPN_CACHE") or Path.home() / ".cache" / "ppn"
    return Path(base) / "wheelhouse"


def dependencies_digest(python: str) -> str:
    """A name for everything that decides what the layer of packages holds."""
    parts = (python, str(LAYER_VERSION), requirements())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def release_digest(python: str) -> str:
    """A name for everything that decides which software a node runs."""
    digest = hashlib.sha256(dependencies_digest(python).encode())
    installer = CHECKOUT / "operations" / "install_software.sh"
    files = {str(installer.relative_to(CHECKOUT)): installer, **own_files()}
    for name, path in files.items():
        digest.update(f"\0{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:20]


def own_files() -> dict[str, Path]:
    """ppn's own files by their place among a node's packages."""
    return files_of(CHECKOUT / "ppn", CHECKOUT)


def files_of(folder: Path, above: Path) -> dict[str, Path]:
    """The files below a folder by their place below another, sorted, without what Python left."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(above).as_posix(): path
        for path in sorted(found)
        if "__pycache__" not in path.parts
    }


@functools.cache
def requirements() -> str:
    """What is locked for nodes, by name, version and hash, as pip reads it.

    Raises:
        WheelhouseError: uv is missing.
    """
    uv = CHECKOUT / ".tools" / "uv" / "bin" / "uv"
    if not uv.exists():
        raise WheelhouseError(f"{uv.relative_to(CHECKOUT)} is missing", hint="run scripts/setup")
    # Nothing in it may depend on this machine: it names the layer.
    plain = ["--no-header", "--no-annotate"]
    export = [str(uv), "export", "-q", "--frozen", "--no-dev", "--no-emit-project", *plain]
    return run(export, timeout=120, cwd=CHECKOUT).stdout


def build_dependencies(python: str, wheels: Path | None) -> bytes:
    """The layer of packages, from wheels whose hashes are the locked ones."""
    source = wheels or fetched(python)
    with tempfile.TemporaryDirectory(prefix="ppn-software-") as name:
        folder = Path(name)
        (folder / REQUIREMENTS).write_text(requirements(), encoding="utf-8")
        run(install_command(python, source, folder), timeout=300, cwd=folder)
        return pack(files_of(folder / "site", folder / "site"))


def install_command(python: str, wheels: Path, folder: Path) -> list[str | Path]:
    """The call that unpacks the locked wheels for a node's Python."""
    # fmt: off
    return [
        sys.executable, "-m", "pip", "install", "-q",
        "--disable-pip-version-check",
        "--no-index",
        "--find-links", wheels,
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


def fetched(python: str) -> Path:
    """A folder with every locked wheel for a node's Python, from the network or an earlier time."""
    folder = cache_folder() / f"locked-{dependencies_digest(python)}"
    if folder.is_dir():
        return folder
    staging = Path(tempfile.mkdtemp(prefix=".locked-", dir=cache_folder()))
    listed = staging / REQUIREMENTS
    listed.write_text(requirements(), encoding="utf-8")
    run(download_command(python, listed, staging), timeout=900, cwd=CHECKOUT)
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


def pack(files: Mapping[str, Path]) -> bytes:
    """Files as a compressed tar archive that depends on names and contents alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, path in files.items():
            # pip's own scripts name the interpreter of this machine; nodes need none of them.
            if name.startswith("bin/") or path.name in ("RECORD", "direct_url.json"):
                continue
            entry = tarfile.TarInfo(name)
            content = path.read_bytes()
            entry.size = len(content)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)
