"""The cloud-init volume: what goes in comes out, and nothing else does."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from pycdlib import PyCdlib

from ppn.host.lease import Lease
from ppn.host.seed import meta_data, network_config, seed_image, user_data, write_seed
from tests.unit.host.builders import UUID, make_spec
from tests.unit.host.test_network import make_network

TEXTS = st.text(max_size=60)
KEYS = st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
HOSTILE = st.sampled_from(
    ["\n", "\r\n", "\x85", "\u2028", "\x7f", "\ufeff", "😀", '"', "'", ": ", "- ", "#", "<<", "&a"]
)


@given(
    st.dictionaries(
        KEYS.filter(lambda key: key not in {"hostname", "fqdn", "ssh_authorized_keys"}),
        VALUES | HOSTILE,
        max_size=4,
    )
)
def test_user_data_round_trips_without_a_new_key(data: dict[str, Any]) -> None:
    """HOST-03: a YAML reader gets exactly what was given, whatever characters it holds."""
    document = user_data(make_spec(user_data=data))
    assert document.startswith(b"#cloud-config\n")
    assert yaml.safe_load(document) == data | {"hostname": "web"}


@given(st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs", "Z"])), max_size=3))
def test_keys_round_trip(comments: list[str]) -> None:
    """HOST-03: a key's comment stays a part of the key's line."""
    keys = [
        f"ssh-ed25519 AAAA {comment}"
        for comment in comments
        if f"ssh-ed25519 AAAA {comment}".isprintable()
    ]
    found = yaml.safe_load(user_data(make_spec(ssh_keys=keys)))
    assert found.pop("ssh_authorized_keys", []) == keys
    assert found == {"hostname": "web"}


def test_network_config_is_one_static_interface_found_by_its_address() -> None:
    """HOST-03: address, prefix and gateway are there without the guest asking anybody."""
    network = make_network(vm_range="10.9.2.0/24")
    found = yaml.safe_load(network_config("52:54:00:00:00:01", Lease(address="10.9.2.5"), network))
    assert found == {
        "version": 2,
        "ethernets": {
            "eth0": {
                "match": {"macaddress": "52:54:00:00:00:01"},
                "set-name": "eth0",
                "addresses": ["10.9.2.5/24"],
                "routes": [{"to": "0.0.0.0/0", "via": "10.9.2.1"}],
            }
        },
    }


def test_volume_holds_a_network_config_only_where_there_is_one() -> None:
    """HOST-03."""
    names = []
    for image in (seed_image(make_spec(), UUID), seed_image(make_spec(), UUID, b"{}")):
        volume = PyCdlib()
        volume.open_fp(io.BytesIO(image))
        names.append({child.file_identifier() for child in volume.list_children(joliet_path="/")})
    assert "network-config".encode("utf-16-be") not in names[0]
    assert names[1] - names[0] == {"network-config".encode("utf-16-be")}


def test_meta_data_names_the_instance() -> None:
    """HOST-03."""
    found = yaml.safe_load(meta_data(make_spec(hostname="www.example"), UUID))
    assert found == {"instance-id": UUID, "local-hostname": "www.example"}


def test_volume_has_the_label_and_both_files(tmp_path: Path) -> None:
    """HOST-03: read back with Rock Ridge and with Joliet names."""
    spec = make_spec(ssh_keys=["ssh-ed25519 AAAA me"])
    path = tmp_path / "seed.iso"
    write_seed(path, spec, UUID)
    assert path.stat().st_mode & 0o777 == 0o600
    volume = PyCdlib()
    volume.open_fp(io.BytesIO(seed_image(spec, UUID)))
    assert volume.pvd.volume_identifier.decode().strip() == "cidata"
    for name, content in (("user-data", user_data(spec)), ("meta-data", meta_data(spec, UUID))):
        for way in ({"rr_path": f"/{name}"}, {"joliet_path": f"/{name}"}):
            read = io.BytesIO()
            volume.get_file_from_iso_fp(read, **way)
            assert read.getvalue() == content
    volume.close()
