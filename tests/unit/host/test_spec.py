"""The VM description: what it accepts, and how it says what is wrong."""

from __future__ import annotations

import json

import pytest

from ppn.host.spec import SpecInvalid, VmSpec, spec_from_data, spec_from_json
from tests.unit.host.builders import make_spec

GOOD = {"name": "web", "image": "tiny", "vcpus": 2, "memory_mib": 512}


def test_host_name_is_the_vms_name_when_not_given() -> None:
    assert make_spec().hostname == "web"
    assert make_spec(hostname="www.example").hostname == "www.example"


def test_lists_of_python_data_and_arrays_of_json_give_the_same_spec() -> None:
    data = GOOD | {"disks": [{"name": "data", "size_gib": 2}], "ssh_keys": ["ssh-ed25519 AAAA me"]}
    assert spec_from_data(data) == spec_from_json(json.dumps(data))
    assert VmSpec.model_validate_json(spec_from_data(data).model_dump_json()) == spec_from_data(
        data
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Web"),
        ("name", "-web"),
        ("name", "../web"),
        ("name", "web\n"),
        ("name", "w" * 64),
        ("image", "../tiny"),
        ("image", ".hidden"),
        ("vcpus", 0),
        ("vcpus", "2"),
        ("vcpus", True),
        ("memory_mib", 63),
        ("memory_mib", 512.0),
        ("disk_gib", 0),
        ("state", "paused"),
        ("hostname", "web\nruncmd: [id]"),
        ("hostname", ""),
        ("hostname", "a" * 64),
        ("ssh_keys", ["ssh-ed25519 AAAA\nssh-ed25519 BBBB"]),
        ("ssh_keys", ["nonsense"]),
        ("cmdline_extra", "a\nb"),
        ("owner", ""),
        ("disks", [{"name": "seed", "size_gib": 1}]),
        ("disks", [{"name": "a", "size_gib": 1}, {"name": "a", "size_gib": 2}]),
        ("disks", [{"name": "a/b", "size_gib": 1}]),
        ("disks", [{"name": "a", "size_gib": 1, "path": "/dev/sda"}]),
        ("user_data", {"hostname": "other"}),
        ("user_data", {"write_files": [{"k" * 200: 1}]}),
        ("weight", 300),
        ("minimum_mib", 64),
    ],
)
def test_bad_value_is_refused_and_named(field: str, value: object) -> None:
    """HOST-03: no value can carry a line break, a path or a second meaning."""
    with pytest.raises(SpecInvalid) as refused:
        spec_from_data(GOOD | {field: value})
    assert field in refused.value.message
    assert refused.value.code == "spec_invalid"


def test_every_problem_is_said_at_once() -> None:
    with pytest.raises(SpecInvalid) as refused:
        spec_from_data(GOOD | {"vcpus": 0, "memory_mib": 1, "disk_gib": 0})
    for field in ("vcpus", "memory_mib", "disk_gib"):
        assert field in refused.value.message


def test_refusal_does_not_repeat_user_data() -> None:
    with pytest.raises(SpecInvalid) as refused:
        spec_from_data(GOOD | {"user_data": {"password": "hunter2", "hostname": "x"}})
    assert "hunter2" not in str(refused.value)


def test_no_json_is_a_refusal() -> None:
    with pytest.raises(SpecInvalid):
        spec_from_json("{")


def test_digest_follows_everything_but_the_state() -> None:
    spec = make_spec()
    assert spec.digest() == make_spec(state="stopped").digest()
    for field, value in {"vcpus": 4, "label": "x", "cmdline_extra": "quiet"}.items():
        assert make_spec(**{field: value}).digest() != spec.digest()
