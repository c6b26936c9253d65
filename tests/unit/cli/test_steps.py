"""How many steps everyday work takes an operator, counted in the documentation (OPS-04)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.unit.cli.test_help import EVERY

CHECKOUT = Path(__file__).resolve().parents[3]
PAGE = (CHECKOUT / "docs" / "cli.md").read_text(encoding="utf-8")
# What may be typed; more would be a regression.
MOST = {"Add a node": 3, "Create a VM": 1, "Move a VM": 1, "Find out why": 1}


def steps(title: str) -> list[str]:
    """The numbered steps below a heading."""
    section = PAGE.partition(f"### {title}\n")[2].partition("\n#")[0]
    return re.findall(r"^\d+\. (.+)$", section, re.MULTILINE)


@pytest.mark.parametrize("title", MOST)
def test_everyday_work_is_as_short_as_it_is_said_to_be(title: str) -> None:
    """OPS-04."""
    assert 0 < len(steps(title)) <= MOST[title]


@pytest.mark.parametrize("title", MOST)
def test_each_command_of_the_steps_is_one(title: str) -> None:
    """OPS-04: every `ppn` that is documented can be typed, with these very options."""
    for line in re.findall(r"`(ppn .+?)`", "\n".join(steps(title))):
        words = shlex.split(line)[1:]
        name = " ".join(words[:2])
        known = {option for one in EVERY[name].params for option in one.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_what_the_deploy_is_given_is_there() -> None:
    """OPS-04."""
    (run,) = [step for step in steps("Add a node") if "pyinfra" in step]
    assert (CHECKOUT / run.strip("`").split()[-1]).exists()
