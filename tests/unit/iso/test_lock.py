"""The lock: a text that reads well, holds what it should, and is refused when it does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iso.archive import ArchiveUnusable
from iso.lock import LOCK_FILE, Archive, Lock, LockUnusable, Package, Tree, changes, parse
from iso.refresh import differs, need_no_older
from iso.root import recipes
from iso.wheels import node_wheels
from tests.unit.iso.locks import LOCK, package, sha256

words = st.text("abcdefghijklmnopqrstuvwxyz0123456789+.-", min_size=1, max_size=12).filter(
    lambda word: word[0].isalnum()
)
packages = st.builds(
    lambda name, version, trees: package(name, version, trees=tuple(sorted(trees))),
    words,
    words,
    st.frozensets(words, min_size=1, max_size=3),
)


@given(st.lists(packages, max_size=8, unique_by=lambda one: one.name), st.randoms())
def test_a_lock_reads_back_whatever_its_order(found: list[Package], random: object) -> None:
    """ISO-02: one text for one lock."""
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (
        replace(LOCK, packages=tuple(sorted(found))),
        replace(LOCK, packages=tuple(shuffled)),
    )
    assert one.text() == other.text()
    assert parse(other.text(), "x") == one


def test_a_changed_package_is_one_changed_line() -> None:
    newer = replace(LOCK, packages=(package("bash", "2"), *LOCK.packages[1:]))
    before, after = LOCK.text().splitlines(), newer.text().splitlines()
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha256", "abc"),
        ("sha256", sha256("x").upper()),
        ("path", "/etc/passwd"),
        ("path", "pool/../../secret.deb"),
        ("path", "pool/main/.hidden"),
        ("path", "pool/x?y.deb"),
        ("size", -1),
        ("size", "12"),
        ("size", True),
        ("path", "pool/a b.deb"),
        ("path", "pool/%2e%2e/b.deb"),
        ("path", "pool//b.deb"),
        # They would be further words for mmdebstrap and apt.
        ("name", "bash,evil"),
        ("name", "?essential"),
        ("version", "1\nPackage: evil"),
        ("trees", "node"),
        ("more", 1),
        ("name", None),
    ],
)
def test_a_damaged_line_is_refused_by_its_number(field: str, value: object) -> None:
    """What a path or a hash may be is checked before it becomes part of an address or a path."""
    lines = LOCK.text().splitlines()
    number = next(n for n, line in enumerate(lines) if '"package"' in line)
    fields = json.loads(lines[number])
    if value is None:
        del fields[field]
    else:
        fields[field] = value
    lines[number] = json.dumps(fields)
    with pytest.raises(LockUnusable, match=f"line {number + 1} is damaged"):
        parse("\n".join(lines), "the lock")


@pytest.mark.parametrize(
    "file",
    [
        "anyio.whl",
        "anyio-4.9-py3-none-any.tar.gz",
        "../anyio-4.9-py3-none-any.whl",
        "anyio-4.9 --index-url=x-py3-none-any.whl",
        "anyio-4.9\n-py3-none-any.whl",
    ],
)
def test_what_is_no_wheel_is_refused(file: str) -> None:
    """ISO-02: it would be a line for pip."""
    text = LOCK.text().replace(json.dumps(LOCK.wheels[0].file), json.dumps(file))
    with pytest.raises(LockUnusable, match="is damaged"):
        parse(text, "the lock")


@pytest.mark.parametrize(
    ("twice", "named"),
    [
        (replace(LOCK.packages[0], sha256=sha256("other")), "bash"),
        (replace(LOCK.packages[0], name="other"), "bash_1_amd64.deb"),
        (replace(LOCK.packages[0], name="new", path="new.deb", archive="other"), "archive other"),
    ],
)
def test_what_two_lines_say_differently_is_refused(twice: Package, named: str) -> None:
    """ISO-02: which of two files goes in must not depend on their order."""
    text = replace(LOCK, packages=(*LOCK.packages, twice)).text()
    with pytest.raises(LockUnusable, match=named):
        parse(text, "the lock")


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"kind": "other"}', '{"name": "x"}'])
def test_what_is_no_lock_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(text)
    with pytest.raises(LockUnusable):
        Lock.read(tmp_path / "lock")


def test_a_missing_lock_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(LockUnusable, match="scripts/iso lock"):
        Lock.read(tmp_path / "lock")


def test_changes_say_what_came_went_and_moved() -> None:
    newer = replace(
        LOCK,
        packages=(
            package("bash", "2"),
            replace(LOCK.packages[1], trees=("node",)),
            package("zstd"),
        ),
    )
    found = {one.name: (one.kind, one.before, one.after) for one in changes(LOCK, newer)}
    assert found == {
        "bash": ("version", "1", "2"),
        "libc6": ("content", "1", "1"),
        "xorriso": ("removed", "1", ""),
        "zstd": ("added", "", "1"),
    }
    assert {one.kind for one in changes(None, LOCK)} == {"added"}


def test_a_newer_day_of_the_same_packages_is_no_news() -> None:
    """A refresh that changes nothing leaves the committed file alone, and `--check` content."""
    later = replace(LOCK, archives=(Archive("debian", ("trixie",), "20270101T000000Z"),))
    assert not differs(LOCK, later)
    assert differs(None, LOCK)
    assert differs(LOCK, replace(LOCK, trees=(Tree("node", ("bash", "zstd")), LOCK.trees[1])))


def test_an_archive_that_is_older_than_the_lock_is_refused() -> None:
    """ISO-01: an old list is signed as well as a new one."""
    debian, security = LOCK.archives
    need_no_older(None, LOCK)
    need_no_older(LOCK, LOCK)
    older = replace(LOCK, archives=(debian, replace(security, date="20261121T105959Z")))
    need_no_older(older, LOCK)
    with pytest.raises(ArchiveUnusable, match="debian-security is of 20261121T105959Z") as refused:
        need_no_older(LOCK, older)
    assert refused.value.code == "archive_older"


def test_a_changed_list_of_packages_asks_for_a_new_lock() -> None:
    LOCK.check("node", ["bash"])
    with pytest.raises(LockUnusable, match=r"list changed: zsh.*scripts/iso lock") as stale:
        LOCK.check("node", ["bash", "zsh"])
    assert stale.value.code == "lock_stale"
    with pytest.raises(LockUnusable, match="no tree other"):
        LOCK.check("other", [])


def test_the_epoch_is_the_newest_archives_date() -> None:
    assert LOCK.epoch == 1795258800


def test_the_committed_lock_is_about_the_committed_lists() -> None:
    """ISO-02: whoever changes a list of packages refreshes the lock too."""
    lock = Lock.read()
    assert lock.text() == LOCK_FILE.read_text(encoding="utf-8")
    for recipe in recipes():
        lock.check(recipe.name, recipe.packages)
        assert {*recipe.packages} <= {one.name for one in lock.of(recipe.name)}


def test_the_committed_lock_is_about_the_committed_wheels() -> None:
    """ISO-02: whoever changes uv.lock refreshes this lock too."""
    assert Lock.read().wheels == node_wheels()


def test_the_committed_lock_names_no_host() -> None:
    assert "//" not in LOCK_FILE.read_text(encoding="utf-8")
