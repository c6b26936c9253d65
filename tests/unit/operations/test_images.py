"""Guest images: immutable under their name, whole before they have it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from pyinfra.api import OperationValueError

from facts.images import ImageDigests
from operations import images
from tests.unit.operations.yielded import refusal, yielded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kernel").write_bytes(b"k")
    digest = hashlib.sha256(b"k").hexdigest()
    manifest = {"name": "tiny", "kernel": "kernel", "sha256": {"kernel": digest}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def digest_of(folder: Path) -> str:
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def test_missing_image_is_uploaded_and_checked(folder: Path) -> None:
    commands, _ = yielded(images.present, {ImageDigests: {}}, image="tiny", folder=str(folder))
    assert [command.dest for command in commands[1:-1]] == [
        "/var/lib/ppn/images/.tiny.new/manifest.json",
        "/var/lib/ppn/images/.tiny.new/kernel",
    ]
    assert "sha256sum --quiet -c" in str(commands[-1])


def test_present_image_is_left_alone(folder: Path) -> None:
    known = {"tiny": digest_of(folder)}
    commands, _ = yielded(images.present, {ImageDigests: known}, image="tiny", folder=str(folder))
    assert commands == []


def test_another_image_of_the_name_is_refused(folder: Path) -> None:
    known = {"tiny": "00"}
    commands, _ = yielded(images.present, {ImageDigests: known}, image="tiny", folder=str(folder))
    assert "Give the new image a new name" in refusal(commands)


def test_unreadable_images(folder: Path) -> None:
    commands, _ = yielded(images.present, {ImageDigests: None}, image="tiny", folder=str(folder))
    assert "cannot read the guest images" in refusal(commands)


def test_a_folder_that_lacks_a_file_is_an_error_of_the_inventory(folder: Path) -> None:
    (folder / "kernel").unlink()
    with pytest.raises(OperationValueError, match="kernel is named but not there"):
        yielded(images.present, {ImageDigests: {}}, image="tiny", folder=str(folder))
