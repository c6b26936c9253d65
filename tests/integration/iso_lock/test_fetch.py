"""The cache gets what the lock names, or says exactly why not, whatever a mirror does."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from iso import fetch as fetching
from iso.cache import Cache, CacheUnusable
from iso.fetch import FetchFailed, described, fetch
from iso.lock import Archive, Lock, Package
from tests.integration.iso_lock.mirror import Mirror, served

DAY = "20261121T081500Z"
CONTENT = {name: (name * 3000).encode() for name in ("bash", "libc6", "zstd", "dpkg", "apt")}


def package(name: str) -> Package:
    """A package with a content of its own."""
    content = CONTENT[name]
    path = f"pool/main/{name[0]}/{name}/{name}_1_amd64.deb"
    sha256 = hashlib.sha256(content).hexdigest()
    return Package(name, "1", "amd64", "debian", path, len(content), sha256, ("node",))


PACKAGES = tuple(package(name) for name in sorted(CONTENT))
LOCK = Lock((Archive("debian", ("trixie",), DAY),), (), PACKAGES, ())
BASH = package("bash")


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with served() as found:
        for one in PACKAGES:
            found.files[f"debian/{one.path}"] = CONTENT[one.name]
        yield found


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PAUSE_SECONDS", 0.01)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def get(
    mirror: Mirror,
    cache: Cache,
    packages: tuple[Package, ...] = PACKAGES,
    *,
    offline: bool = False,
    snapshot: str = "",
) -> list[str]:
    """Fetch packages; what was said of the progress."""
    told: list[str] = []
    environment = {
        "PPN_MIRROR": f"{mirror.address}/debian",
        "PPN_SECURITY_MIRROR": f"{mirror.address}/debian-security",
        "PPN_SNAPSHOT": snapshot,
    }
    fetch(LOCK, packages, cache, told.append, offline=offline, environment=environment)
    return told


def kept(cache: Cache) -> list[str]:
    """What is in the cache, drafts too."""
    return sorted(path.name for path in cache.folder.rglob("*") if path.is_file())


def test_all_is_fetched_once(mirror: Mirror, cache: Cache) -> None:
    """ISO-02: each file under its hash; a second time nobody is asked."""
    told = get(mirror, cache)
    assert kept(cache) == sorted(one.sha256 for one in PACKAGES)
    assert len(told) == len(PACKAGES)
    assert cache.path(BASH.sha256).read_bytes() == CONTENT["bash"]
    mirror.asked.clear()
    get(mirror, cache)
    assert mirror.asked == []


@pytest.mark.fault("the mirror cuts a download off", "it goes on where it was cut")
def test_a_cut_download_is_resumed(mirror: Mirror, cache: Cache) -> None:
    mirror.faults[f"debian/{BASH.path}"] = ["cut"]
    get(mirror, cache, (BASH,))
    half = len(CONTENT["bash"]) // 2
    assert [begin for _, begin in mirror.asked] == ["", f"bytes={half}-"]
    assert cache.path(BASH.sha256).read_bytes() == CONTENT["bash"]


def test_a_mirror_that_is_busy_is_asked_again(mirror: Mirror, cache: Cache) -> None:
    mirror.faults[f"debian/{BASH.path}"] = [503, "cut"]
    get(mirror, cache, (BASH,))
    assert kept(cache) == [BASH.sha256]


@pytest.mark.parametrize("fault", [503, 403, "cut"])
def test_a_mirror_that_stays_bad_is_named(mirror: Mirror, cache: Cache, fault: int | str) -> None:
    mirror.faults[f"debian/{BASH.path}"] = [fault] * 9
    if fault == "cut":
        # It never gets further.
        mirror.files[f"debian/{BASH.path}"] = CONTENT["bash"][:1000]
    with pytest.raises(FetchFailed, match=r"bash 1 .*cannot be fetched.*PPN_MIRROR"):
        get(mirror, cache, (BASH,))
    assert kept(cache) == []


@pytest.mark.fault("a mirror sends wrong bytes", "refused, nothing is kept, the package is named")
@pytest.mark.parametrize("wrong", [CONTENT["bash"][:-1] + b"!", CONTENT["bash"] + b"more"])
def test_wrong_bytes_are_refused(mirror: Mirror, cache: Cache, wrong: bytes) -> None:
    """ISO-02: the build takes only what the lock names."""
    mirror.files[f"debian/{BASH.path}"] = wrong
    with pytest.raises(CacheUnusable, match=r"bash 1 .*not what the lock names") as refused:
        get(mirror, cache, (BASH,))
    assert refused.value.code == "bytes_differ"
    assert kept(cache) == []


def test_a_mirror_that_never_ends_is_left(mirror: Mirror, cache: Cache) -> None:
    mirror.faults[f"debian/{BASH.path}"] = ["endless"]
    mirror.files[f"debian/{BASH.path}"] = b"x" * BASH.size
    with pytest.raises(CacheUnusable):
        get(mirror, cache, (BASH,))
    assert kept(cache) == []


@pytest.mark.fault(
    "the archive no longer has a locked package",
    "the message names package, version, path, the cache and the snapshot setting",
)
def test_a_package_that_is_gone_says_what_to_do(mirror: Mirror, cache: Cache) -> None:
    del mirror.files[f"debian/{BASH.path}"]
    with pytest.raises(FetchFailed) as gone:
        get(mirror, cache)
    assert gone.value.code == "package_gone"
    for word in ("bash 1", BASH.path, str(cache.folder), "PPN_SNAPSHOT", "cache import"):
        assert word in str(gone.value)


def test_a_snapshot_of_the_lock_s_day_has_it(mirror: Mirror, cache: Cache) -> None:
    """ISO-02: years later the same bytes come."""
    del mirror.files[f"debian/{BASH.path}"]
    mirror.files[f"old/debian/{DAY}/{BASH.path}"] = CONTENT["bash"]
    get(mirror, cache, (BASH,), snapshot=f"{mirror.address}/old/")
    assert kept(cache) == [BASH.sha256]


@pytest.mark.parametrize("address", ["http://mirror:port/debian", "mirror/debian", "file:///srv"])
def test_an_address_that_is_none_is_told(cache: Cache, address: str) -> None:
    environment = {"PPN_MIRROR": address, "PPN_SECURITY_MIRROR": address}
    with pytest.raises(FetchFailed, match=r"bash 1 .*cannot be fetched.*PPN_MIRROR"):
        fetch(LOCK, (BASH,), cache, print, environment=environment)


def test_half_a_file_of_one_place_is_not_ended_by_another(mirror: Mirror, cache: Cache) -> None:
    """The first half may have been the wrong one."""
    mirror.files[f"debian/{BASH.path}"] = b"x" * 1000
    mirror.files[f"old/debian/{DAY}/{BASH.path}"] = CONTENT["bash"]
    get(mirror, cache, (BASH,), snapshot=f"{mirror.address}/old")
    assert kept(cache) == [BASH.sha256]


def test_a_snapshot_that_lacks_it_too_is_told(mirror: Mirror, cache: Cache) -> None:
    del mirror.files[f"debian/{BASH.path}"]
    with pytest.raises(FetchFailed, match="the archive and the snapshot no longer"):
        get(mirror, cache, (BASH,), snapshot=f"{mirror.address}/old")


def test_offline_opens_no_connection(
    mirror: Mirror, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ISO-02: from the cache alone; what is missing is named."""
    get(mirror, cache, PACKAGES[1:])

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refused)
    get(mirror, cache, PACKAGES[1:], offline=True)
    with pytest.raises(CacheUnusable, match=PACKAGES[0].path) as missing:
        get(mirror, cache, offline=True)
    assert missing.value.code == "not_in_cache"


@pytest.mark.fault("a file of the cache is damaged", "it is fetched again; offline it is named")
def test_a_damaged_file_counts_as_missing(mirror: Mirror, cache: Cache) -> None:
    get(mirror, cache, (BASH,))
    cache.path(BASH.sha256).write_bytes(b"rotten")
    with pytest.raises(CacheUnusable, match=BASH.path):
        get(mirror, cache, (BASH,), offline=True)
    get(mirror, cache, (BASH,))
    assert cache.path(BASH.sha256).read_bytes() == CONTENT["bash"]


def test_a_cache_is_carried(mirror: Mirror, cache: Cache, tmp_path: Path) -> None:
    """ISO-02: exported, imported on a machine without a network, each file judged there."""
    get(mirror, cache)
    files = [described(one) for one in PACKAGES]
    stick, other = Cache(tmp_path / "stick"), Cache(tmp_path / "other")
    assert cache.copy_to(stick, files, print) == len(files)
    assert cache.copy_to(stick, files, print) == 0
    stick.path(BASH.sha256).write_bytes(b"rotten")
    with pytest.raises(CacheUnusable, match=BASH.path):
        stick.copy_to(other, files, print)
    # The rest is there, so that a cache of another lock helps where a package is gone.
    assert other.absent(files) == [described(BASH)]
    assert cache.copy_to(other, files, print) == 1
    stick.path(PACKAGES[0].sha256).unlink()
    assert stick.copy_to(other, files, print) == 0


def test_a_hash_is_all_that_names_a_file(cache: Cache) -> None:
    """Two packages of one content are one file; a draft is never taken for it."""
    file = described(replace(BASH, name="other"))
    draft = cache.draft(file)
    draft.write_bytes(CONTENT["bash"])
    assert not cache.has(file)
    cache.keep(draft, file)
    assert cache.has(described(BASH))
