"""The archive is asked with the real apt, and believed only with a signature that is known."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from iso import archive
from iso.archive import SUITES, ArchiveUnusable, ask
from iso.cache import Cache
from iso.fetch import fetch
from iso.lock import Lock
from iso.repository import lay_out
from ppn.run import run
from tests.integration.iso_lock.mirror import Mirror, served

DATE = "Sat, 21 Nov 2026 08:15:00 UTC"
CONTROL = """\
Package: {name}
Version: {version}
Architecture: all
Maintainer: nobody <nobody@ppn.test>
Essential: {essential}
{depends}Description: a package
"""


@dataclass(frozen=True)
class Deb:
    """A package of the small archive.

    Args:
        name: its name.
        version: its version.
        depends: what it needs.
        essential: whether every system has it.
    """

    name: str
    version: str
    depends: str = ""
    essential: bool = False


OLD = (
    Deb("base", "1.0", essential=True),
    Deb("apt", "3.0", "libc++1"),
    Deb("libc++1", "1:2.0-1"),
    Deb("tool", "1.0", "libc++1, other"),
    Deb("other", "1.0"),
    Deb("never-asked", "1.0"),
)
SECURITY = (Deb("other", "1.0+deb13u1"),)


class Signer:
    """A key that signs archives.

    Args:
        home: a folder for it.
    """

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        self.gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
        made = ["--passphrase", "", "--quick-generate-key", "archive@ppn.test", "rsa2048", "sign"]
        run([*self.gpg, *made, "never"], timeout=120)
        self.keyring = home / "public.gpg"
        run([*self.gpg, "--output", self.keyring, "--export"], timeout=60)

    def sign(self, text: str) -> bytes:
        """A text with its signature around it."""
        done = run([*self.gpg, "--clearsign"], timeout=60, input=text)
        return done.stdout.encode()

    def close(self) -> None:
        """End the program that holds the key."""
        home = self.gpg[2]
        run(["gpgconf", "--homedir", home, "--kill", "all"], timeout=60)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    # Its sockets have short names only below a short path.
    found = Signer(tmp_path_factory.mktemp("g") / "k")
    yield found
    found.close()


def built(deb: Deb, folder: Path) -> bytes:
    """The file of a package."""
    root = folder / f"{deb.name}-{hashlib.sha256(deb.version.encode()).hexdigest()[:8]}"
    (root / "DEBIAN").mkdir(parents=True)
    control = CONTROL.format(
        name=deb.name,
        version=deb.version,
        essential="yes" if deb.essential else "no",
        depends=f"Depends: {deb.depends}\n" if deb.depends else "",
    )
    (root / "DEBIAN/control").write_text(control)
    run(["dpkg-deb", "--root-owner-group", "--build", root, root.with_suffix(".deb")], timeout=60)
    return root.with_suffix(".deb").read_bytes()


def publish(mirror: Mirror, name: str, debs: tuple[Deb, ...], folder: Path, signer: Signer) -> None:
    """Put an archive on the mirror, signed, the first suite full and the others empty."""
    stanzas = ""
    for deb in debs:
        content = built(deb, folder / name)
        path = f"pool/main/{deb.name[0]}/{deb.name}/{deb.name}_{deb.version.split(':')[-1]}_all.deb"
        mirror.files[f"{name}/{path}"] = content
        file = folder / "control.deb"
        file.write_bytes(content)
        control = run(["dpkg-deb", "--field", file], timeout=60).stdout
        sha256 = hashlib.sha256(content).hexdigest()
        stanzas += f"{control}Filename: {path}\nSize: {len(content)}\nSHA256: {sha256}\n\n"
    for suite in SUITES[name]:
        listed = (stanzas if suite == SUITES[name][0] else "").encode()
        place = f"{name}/dists/{suite}"
        mirror.files[f"{place}/main/binary-amd64/Packages"] = listed
        entry = f" {hashlib.sha256(listed).hexdigest()} {len(listed)} main/binary-amd64/Packages\n"
        release = (
            f"Origin: Debian\nSuite: {suite}\nCodename: {suite}\nDate: {DATE}\n"
            f"Architectures: amd64 all\nComponents: main\nSHA256:\n{entry}"
        )
        mirror.files[f"{place}/InRelease"] = signer.sign(release)


@pytest.fixture
def mirror(tmp_path: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setattr(archive, "KEYRING", signer.keyring)
    with served() as found:
        publish(found, "debian", OLD, tmp_path, signer)
        publish(found, "debian-security", SECURITY, tmp_path, signer)
        yield found


def addresses(mirror: Mirror) -> dict[str, str]:
    """Where the archives are."""
    return {name: f"{mirror.address}/{name}" for name in SUITES}


def test_the_archive_s_state_is_locked(mirror: Mirror) -> None:
    """ISO-02: what is asked for, what it needs, what every system has; the newest of each."""
    state = ask(addresses(mirror), {"one": ["tool"], "two": ["other"]}, print)
    found = {one.name: (one.version, one.archive, one.trees) for one in state.packages}
    assert found == {
        "apt": ("3.0", "debian", ("one", "two")),
        "base": ("1.0", "debian", ("one", "two")),
        "libc++1": ("1:2.0-1", "debian", ("one", "two")),
        "other": ("1.0+deb13u1", "debian-security", ("one", "two")),
        "tool": ("1.0", "debian", ("one",)),
    }
    assert {one.name: one.date for one in state.archives} == {
        "debian": "20261121T081500Z",
        "debian-security": "20261121T081500Z",
    }


def test_what_was_locked_can_be_fetched_and_laid_out(mirror: Mirror, tmp_path: Path) -> None:
    """ISO-02: the same list of packages, whatever the order in which they are given."""
    state = ask(addresses(mirror), {"one": ["tool"]}, print)
    lock, cache = Lock(state.archives, (), state.packages, ()), Cache(tmp_path / "cache")
    environment = {
        "PPN_MIRROR": f"{mirror.address}/debian",
        "PPN_SECURITY_MIRROR": f"{mirror.address}/debian-security",
    }
    fetch(lock, lock.packages, cache, print, environment=environment)
    lists = []
    for number, order in enumerate((lock.packages, lock.packages[::-1])):
        folder = tmp_path / f"archive{number}"
        folder.mkdir()
        lay_out(folder, order, cache)
        lists.append((folder / "Packages").read_text())
    assert lists[0] == lists[1]
    assert "Filename: ./libc++1_2.0-1_all.deb" in lists[0]
    assert lists[0].count("Package: ") == len(lock.packages)


@pytest.mark.fault("the archive's index is signed by somebody else", "refused, the lock stays")
def test_an_unknown_signature_is_refused(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """ISO-02: with Debian's own keyring, our small archive is nobody's."""
    monkeypatch.setattr(archive, "KEYRING", Path("/usr/share/keyrings/debian-archive-keyring.gpg"))
    with pytest.raises(ArchiveUnusable, match=r"NO_PUBKEY|not signed|Sub-process"):
        ask(addresses(mirror), {"one": ["tool"]}, print)


@pytest.mark.fault("the archive's index was altered", "refused, the lock stays")
@pytest.mark.parametrize("file", ["InRelease", "main/binary-amd64/Packages"])
def test_an_altered_index_is_refused(mirror: Mirror, file: str) -> None:
    path = f"debian/dists/{SUITES['debian'][0]}/{file}"
    altered = mirror.files[path].replace(b"Origin: Debian", b"Origin: Debiam")
    mirror.files[path] = altered.replace(b"Version: 1.0", b"Version: 9.0")
    with pytest.raises(ArchiveUnusable):
        ask(addresses(mirror), {"one": ["tool"]}, print)


def test_a_missing_suite_is_refused(mirror: Mirror) -> None:
    """An unreachable list of security updates is no empty list of them."""
    del mirror.files[f"debian-security/dists/{SUITES['debian-security'][0]}/InRelease"]
    with pytest.raises(ArchiveUnusable, match="PPN_SECURITY_MIRROR"):
        ask(addresses(mirror), {"one": ["tool"]}, print)


def test_a_package_that_there_is_not_is_named(mirror: Mirror) -> None:
    with pytest.raises(ArchiveUnusable, match="no-such-thing"):
        ask(addresses(mirror), {"one": ["no-such-thing"]}, print)
