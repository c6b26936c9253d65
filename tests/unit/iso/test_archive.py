"""What the lock takes over from the archive's lists, and where the archive is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from iso.archive import ArchiveUnusable, Index, date_of, found, mirror, stanzas
from tests.unit.iso.locks import sha256

LIST = f"""\
Package: libstdc++6
Source: gcc-14
Version: 14.2.0-19
Architecture: amd64
Depends: libc6 (>= 2.38)
Description: the library
 Filename: in a description means nothing
Filename: pool/main/g/gcc-14/libstdc++6_14.2.0-19_amd64.deb
Size: 715536
SHA256: {sha256("c++")}

Package: tzdata
Version: 2026b-0+deb13u1
Architecture: all
Filename: pool/main/t/tzdata/tzdata_2026b-0+deb13u1_all.deb
Size: 259000
SHA256: {sha256("tz")}
"""
SITES = """\
http://one.test/debian bookworm
http://one.test/debian bookworm-updates
http://other.test/something nodistro
http://two.test/debian-security bookworm-security
"""


def test_the_lists_say_it_all(tmp_path: Path) -> None:
    (tmp_path / "list").write_text(LIST)
    index = Index("http://one.test/debian", "trixie", tmp_path / "list")
    uri = "http://one.test/debian/pool/main/g/gcc-14/libstdc++6_14.2.0-19_amd64.deb"
    (package,) = found([index], {"node": frozenset({uri}), "tools": frozenset({uri})})
    assert (package.name, package.version, package.archive) == ("libstdc++6", "14.2.0-19", "debian")
    assert (package.size, package.sha256) == (715536, sha256("c++"))
    assert package.trees == ("node", "tools")


def test_a_package_that_no_signed_list_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list").write_text(LIST)
    index = Index("http://one.test/debian", "trixie", tmp_path / "list")
    with pytest.raises(ArchiveUnusable, match=r"evil\.deb"):
        found([index], {"node": frozenset({"http://one.test/debian/evil.deb"})})


def test_words_of_a_description_are_no_fields() -> None:
    assert next(stanzas(LIST))["Filename"].startswith("pool/")


def test_the_host_s_own_mirrors_are_taken_whatever_it_runs() -> None:
    assert mirror("debian", {}, SITES) == "http://one.test/debian"
    assert mirror("debian-security", {}, SITES) == "http://two.test/debian-security"


def test_a_setting_comes_first() -> None:
    environment = {"PPN_MIRROR": "http://three.test/d/"}
    assert mirror("debian", environment, SITES) == "http://three.test/d"
    assert mirror("debian-security", environment, SITES) == "http://two.test/debian-security"


def test_without_any_the_setting_is_named() -> None:
    with pytest.raises(ArchiveUnusable, match="PPN_SECURITY_MIRROR") as unknown:
        mirror("debian-security", {"PPN_MIRROR": "http://three.test/d"}, "")
    assert unknown.value.code == "mirror_unknown"


def test_the_date_is_the_release_s() -> None:
    assert date_of("Suite: stable\nDate: Sat, 21 Nov 2026 08:15:02 UTC\n") == "20261121T081502Z"
