"""What Debian's archive has now: asked with apt, which checks signatures, in a world of its own.

apt gets a folder of its own, an empty list of installed packages and Debian's keyring, so that the
answer is the same on every machine.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote

from iso.lock import Archive, Package, stamp
from ppn.errors import PpnError
from ppn.run import run

ARCHITECTURE = "amd64"
RELEASE = "13"
SUITE = "trixie"
SUITES = {"debian": (SUITE, f"{SUITE}-updates"), "debian-security": (f"{SUITE}-security",)}
SETTINGS = {"debian": "PPN_MIRROR", "debian-security": "PPN_SECURITY_MIRROR"}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
UPDATE_SECONDS = 600
RESOLVE_SECONDS = 120

APT_CONF = """\
Dir "{folder}";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Etc "{folder}/etc";
Dir::Log "{folder}/log";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
"""
SOURCE = """\
Types: deb
URIs: {address}
Suites: {suites}
Components: main
Signed-By: {keyring}

"""


class ArchiveUnusable(PpnError):
    """The Debian archive could not be asked."""

    code = "archive_unusable"


@dataclass(frozen=True)
class State:
    """What the archive has of what was asked for.

    Args:
        archives: the archives and how old they are.
        packages: the packages of all trees, sorted.
    """

    archives: tuple[Archive, ...]
    packages: tuple[Package, ...]


@dataclass(frozen=True)
class Index:
    """A list of packages that apt has fetched and checked.

    Args:
        site: the address of its archive.
        suite: for example `trixie-updates`.
        file: where it is on this machine.
    """

    site: str
    suite: str
    file: Path

    @property
    def archive(self) -> str:
        """The name of its archive."""
        return next(name for name, suites in SUITES.items() if self.suite in suites)


def mirrors(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Where each archive is: as the settings say, else as the host's own apt has it.

    Args:
        environment: `PPN_MIRROR` is the address of the folder that holds `dists` and `pool`,
            `PPN_SECURITY_MIRROR` the same for security updates.

    Raises:
        ArchiveUnusable: neither a setting nor the host says where; it names the setting.
    """
    sites = ""
    if any(not environment.get(setting) for setting in SETTINGS.values()):
        command = ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)"]
        sites = run(command, timeout=60).stdout
    return {name: mirror(name, environment, sites) for name in SUITES}


def mirror(archive: str, environment: Mapping[str, str], sites: str) -> str:
    """The address of one archive.

    Args:
        archive: its name.
        environment: the settings.
        sites: the host's own: address and suite, one to a line.

    Raises:
        ArchiveUnusable: nobody says where it is.
    """
    if environment.get(SETTINGS[archive]):
        return environment[SETTINGS[archive]].rstrip("/")
    for line in sites.splitlines():
        address, _, suite = line.partition(" ")
        # Which release the host runs does not matter: an archive has them all.
        path = address.rstrip("/")
        if path.endswith(f"/{archive}") and suite:
            return path
    raise ArchiveUnusable(
        f"no address of the archive {archive} is known",
        code="mirror_unknown",
        hint=f"set {SETTINGS[archive]} to its address, the folder that holds `dists` and `pool`",
    )


def ask(
    addresses: Mapping[str, str],
    wanted: Mapping[str, Sequence[str]],
    told: Callable[[str], None],
) -> State:
    """Ask the archive what it takes to install some packages.

    Args:
        addresses: where each archive is.
        wanted: the packages asked for, by tree.
        told: called with what is being done.

    Raises:
        ArchiveUnusable: not reachable, signed by somebody else, expired, or packages are missing.
        CommandFailed: apt cannot be started.
    """
    folder = Path(tempfile.mkdtemp(prefix="ppn-lock-"))
    try:
        prepare(folder, addresses)
        told("read the archive's lists")
        apt(folder, ["apt-get", "-q", "update"], UPDATE_SECONDS)
        indexes = read_indexes(folder)
        uris = {}
        for tree, packages in wanted.items():
            told(f"resolve {tree}")
            uris[tree] = resolve(folder, packages)
        return State(read_dates(folder, addresses), found(indexes, uris))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prepare(folder: Path, addresses: Mapping[str, str]) -> None:
    """Write apt's own world into an empty folder."""
    for name in ("state/lists/partial", "cache/archives/partial", "etc", "log"):
        (folder / name).mkdir(parents=True)
    for name in ("apt.conf.d", "preferences.d", "trusted.gpg.d", "sources.list.d"):
        (folder / "etc" / name).mkdir()
    (folder / "status").touch()
    (folder / "apt.conf").write_text(APT_CONF.format(folder=folder, architecture=ARCHITECTURE))
    sources = "".join(
        SOURCE.format(address=address, suites=" ".join(SUITES[name]), keyring=KEYRING)
        for name, address in sorted(addresses.items())
    )
    (folder / "etc/sources.list.d/debian.sources").write_text(sources)


def apt(folder: Path, command: Sequence[str], seconds: float) -> str:
    """What an apt program says in its own world.

    Raises:
        ArchiveUnusable: it ended with an error.
    """
    environment = {**os.environ, "APT_CONFIG": str(folder / "apt.conf"), "LC_ALL": "C.UTF-8"}
    done = run(command, timeout=seconds, env=environment, accept=range(256))
    # `update` takes a list that it could not fetch for a warning, and goes on with an old one.
    said = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:"))]
    if done.returncode != 0 or any("Failed to fetch" in line for line in said):
        raise ArchiveUnusable(
            f"{' '.join(command[:3])}: {' '.join(said) or done.stderr.strip()[-400:]}",
            hint="look at the mirror (PPN_MIRROR, PPN_SECURITY_MIRROR) and the package lists",
        )
    return done.stdout


def read_indexes(folder: Path) -> tuple[Index, ...]:
    """The package lists that apt has."""
    command = ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(FILENAME)"]
    lines = apt(folder, [*command, "Created-By: Packages"], RESOLVE_SECONDS).splitlines()
    rows = (line.split(" ", 2) for line in lines)
    return tuple(Index(site.rstrip("/"), suite, Path(file)) for site, suite, file in rows)


def resolve(folder: Path, packages: Sequence[str]) -> frozenset[str]:
    """The addresses of all that must be fetched to install packages into an empty root."""
    command = ["apt-get", "install", "--yes", "-qq", "--print-uris", "?essential", "apt"]
    lines = apt(folder, [*command, *packages], RESOLVE_SECONDS).splitlines()
    # apt writes some characters of a name, such as +, the way addresses may have them.
    return frozenset(unquote(line.split("'", 2)[1]) for line in lines if line.startswith("'"))


def found(indexes: Sequence[Index], uris: Mapping[str, frozenset[str]]) -> tuple[Package, ...]:
    """The packages behind addresses, as the signed lists describe them.

    Args:
        indexes: the lists.
        uris: what is fetched, by tree.

    Raises:
        ArchiveUnusable: an address is in no list.
    """
    missing = {uri for tree in uris.values() for uri in tree}
    packages = []
    for index in indexes:
        for stanza in stanzas(index.file.read_text(encoding="utf-8")):
            uri = f"{index.site}/{stanza.get('Filename', '')}"
            if uri in missing:
                missing.discard(uri)
                trees = tuple(sorted(tree for tree, known in uris.items() if uri in known))
                packages.append(replace(package(stanza, index.archive), trees=trees))
    if missing:
        raise ArchiveUnusable(f"the archive's lists do not have {', '.join(sorted(missing)[:3])}")
    return tuple(sorted(packages))


FIELDS = ("Package", "Version", "Architecture", "Filename", "Size", "SHA256")


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """The fields that the lock wants, of each package of a list."""
    wanted = tuple(f"{field}: " for field in FIELDS)
    for stanza in text.split("\n\n"):
        lines = (line for line in stanza.split("\n") if line.startswith(wanted))
        yield dict(line.split(": ", 1) for line in lines)


def package(stanza: Mapping[str, str], archive: str) -> Package:
    """A package of an archive, in no tree yet."""
    return Package(
        name=stanza["Package"],
        version=stanza["Version"],
        architecture=stanza["Architecture"],
        archive=archive,
        path=stanza["Filename"],
        size=int(stanza["Size"]),
        sha256=stanza["SHA256"],
        trees=(),
    )


def read_dates(folder: Path, names: Iterable[str]) -> tuple[Archive, ...]:
    """The archives' states, by the dates in the signed files that apt has checked.

    Raises:
        ArchiveUnusable: a suite has no such file.
    """
    dates: dict[str, str] = {}
    for file in (folder / "state/lists").glob("*_InRelease"):
        release = file.read_text(encoding="utf-8")
        dates[field(release, "Codename")] = date_of(release)
    missing = [suite for name in names for suite in SUITES[name] if suite not in dates]
    if missing:
        raise ArchiveUnusable(f"the archive says nothing about {', '.join(missing)}")
    return tuple(
        Archive(name, SUITES[name], max(dates[suite] for suite in SUITES[name]))
        for name in sorted(names)
    )


def field(release: str, name: str) -> str:
    """A field of a Release file; empty when it has none."""
    begin = f"{name}: "
    lines = (line for line in release.splitlines() if line.startswith(begin))
    return next(lines, begin).removeprefix(begin)


def date_of(release: str) -> str:
    """The date in a Release file, as `20261121T081500Z`."""
    return stamp(parsedate_to_datetime(field(release, "Date").replace(" UTC", " +0000")))
