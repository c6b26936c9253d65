"""Installs small stand-ins for ppn with the program that installs ppn on nodes."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from operations.software import INSTALLER

# What the command `ppn` prints: the version of the package it needs, then its own.
MAIN = 'from needed import VERSION\n\ndef main():\n    print(VERSION, "{release}")\n'


@dataclass(frozen=True)
class Target:
    """A folder that ppn is installed into, as /opt/ppn is on a node."""

    folder: Path

    @property
    def command(self) -> Path:
        """What a node has as /usr/local/bin/ppn."""
        return self.folder.with_name("ppn-command")

    def argv(self, dependencies: str, release: str | None = None) -> list[str]:
        """The installer's call."""
        words = [str(self.folder), dependencies]
        if release is not None:
            words += [release, str(self.command)]
        return ["sh", "-c", INSTALLER, "ppn-install", *words]

    def send(self, dependencies: str | None = None, release: str | None = None) -> None:
        """Put archives where an upload leaves them."""
        self.folder.mkdir(exist_ok=True)
        if dependencies is not None:
            files = {"needed/__init__.py": f'VERSION = "{dependencies}"\n'}
            files |= {f"needed/part{number}.py": f"N = {number}\n" for number in range(20)}
            files["pygments/lexers/rare.py"] = "X = 1\n"
            write_archive(self.folder / f"dependencies-{dependencies}.tar.gz", files)
        if release is not None:
            files = {"ppn/__init__.py": "", "ppn/cli.py": MAIN.format(release=release)}
            write_archive(self.folder / f"venv-{release}.tar.gz", files)

    def install(
        self, dependencies: str, release: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the installer to its end."""
        return subprocess.run(
            self.argv(dependencies, release),
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def says(self) -> str:
        """What the installed command prints, as a service would start it."""
        done = subprocess.run(
            [str(self.command)], capture_output=True, text=True, timeout=300, check=True
        )
        return done.stdout.strip()

    def content(self) -> dict[str, bytes]:
        """Every file and link below the folder."""
        return {
            path.relative_to(self.folder).as_posix(): (
                os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            )
            for path in sorted(self.folder.rglob("*"))
            if path.is_symlink() or path.is_file()
        }


def write_archive(path: Path, files: Mapping[str, str]) -> None:
    """A compressed tar archive of texts."""
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
