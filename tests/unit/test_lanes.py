"""Runs of the tests side by side: every test is in one of them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lanes import in_turn

KINDS = ("unit", "lab", "lab_machines", "iso", "simulation", "integration")
FILES = [Path("/tests", folder, f"{n}.py") for folder in "abc" for n in range(2)]
TESTS: list[Any] = [SimpleNamespace(path=file, number=n) for file in FILES for n in range(3)]


@given(st.lists(st.booleans(), min_size=2 * len(TESTS), max_size=2 * len(TESTS)))
def test_every_test_is_in_one_run(turns: list[bool]) -> None:
    """Whichever is the faster one; those of a file are in one run, in their order."""
    backwards = sorted(TESTS, key=lambda test: test.path.parent, reverse=True)
    with tempfile.TemporaryDirectory() as claims:
        runs = [in_turn(TESTS, Path(claims)), in_turn(backwards, Path(claims))]
        done: list[list[Any]] = [[], []]
        for turn in [*turns, *(index % 2 == 0 for index in range(2 * len(TESTS)))]:
            done[turn].extend([one] if (one := next(runs[turn], None)) else [])
    assert len(done[0] + done[1]) == len(TESTS)
    for file in FILES:
        own = [[test for test in run if test.path == file] for run in done]
        assert sorted(own, key=len) == [[], [test for test in TESTS if test.path == file]]


def test_every_test_is_where_they_look() -> None:
    """A file elsewhere would never be run by `scripts/test`, and nobody would be told."""
    tests = Path(__file__).resolve().parents[1]
    places = [path.relative_to(tests).parts for path in tests.rglob("test_*.py")]
    assert {place[0] for place in places} == set(KINDS)
    assert min(len(place) for place in places if place[0] == "integration") > 2


def test_pytest_runs_them(tmp_path: Path) -> None:
    """What fails is told; a second run with the same claims has nothing left to do."""
    (tmp_path / "test_some.py").write_text("def test_red():\n    assert not 'red'\n")
    (tmp_path / "claims").mkdir()
    words = ["-p", "tests.lanes", "--claims", str(tmp_path / "claims"), str(tmp_path)]
    assert [_ends(words), _ends(words)] == [pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.OK]


def _ends(words: list[str]) -> int:
    """How a run of pytest ends that has no plugins but those it names."""
    alone = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    argv = [sys.executable, "-m", "pytest", "-c", "/dev/null", *words]
    return subprocess.run(argv, env=alone, capture_output=True, timeout=120, check=False).returncode
