"""Which wheels a node takes."""

# ruff: noqa: E501

from __future__ import annotations

import pytest

from iso.fetch import requirement
from iso.lock import LockUnusable, Wheel
from iso.wheels import chosen

UV_LOCK = """\
version = 1

[[package]]
name = "ppn"
source = { editable = "." }

[[package]]
name = "fast-thing"
version = "2.0"
wheels = [
    { url = "https://index.test/a/fast_thing-2.0-cp311-cp311-manylinux2014_x86_64.whl", hash = "sha256:11" },
    { url = "https://index.test/b/fast_thing-2.0-py3-none-any.whl", hash = "sha256:22" },
    { url = "https://index.test/c/fast_thing-2.0-cp313-cp313-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", hash = "sha256:33" },
    { url = "https://index.test/d/fast_thing-2.0-cp313-cp313-macosx_11_0_arm64.whl", hash = "sha256:44" },
    { url = "https://index.test/e/fast_thing-2.0-cp313-cp313-musllinux_1_2_x86_64.whl", hash = "sha256:55" },
]

[[package]]
name = "stable"
version = "1.0"
wheels = [
    { url = "https://index.test/f/stable-1.0-cp37-abi3-manylinux_2_28_x86_64.whl", hash = "sha256:66" },
]

[[package]]
name = "source-only"
version = "1.0"
"""


def test_the_best_wheel_for_the_node_is_taken() -> None:
    """ISO-02: what pip would choose there, whatever this machine is."""
    exported = "# a comment\nfast-thing==2.0\n    # via ppn\nstable==1.0\n"
    assert chosen(UV_LOCK, exported) == (
        Wheel("fast_thing-2.0-cp313-cp313-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "33"),
        Wheel("stable-1.0-cp37-abi3-manylinux_2_28_x86_64.whl", "66"),
    )


@pytest.mark.parametrize(
    ("marker", "taken"),
    [
        ("sys_platform == 'win32'", 0),
        ("python_full_version < '3.12'", 0),
        ("python_version >= '3.13' and platform_machine == 'x86_64'", 1),
    ],
)
def test_markers_are_judged_for_the_node(marker: str, taken: int) -> None:
    assert len(chosen(UV_LOCK, f"stable==1.0 ; {marker}\n")) == taken


def test_a_package_without_a_wheel_is_refused() -> None:
    with pytest.raises(LockUnusable, match=r"source-only 1\.0 has no wheel"):
        chosen(UV_LOCK, "source-only==1.0\n")


def test_pip_is_asked_for_one_hash() -> None:
    wheel = Wheel("fast_thing-2.0-py3-none-any.whl", "22")
    assert requirement(wheel) == "fast_thing==2.0 --hash=sha256:22"
