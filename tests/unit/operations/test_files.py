"""Files: planned by content, mode and owner; written through standard input."""

from __future__ import annotations

import json

from facts.files import FileStatus, Statuses
from operations import files
from operations.files import File
from tests.unit.operations.yielded import refusal, texts, yielded

WANTED = {"/etc/ppn/a": File("c0ffee\n", mode="0600"), "/etc/ppn/b": File("two\n")}
CONVERGED = {path: file.status for path, file in WANTED.items()}


def test_nothing_to_do() -> None:
    commands, host = yielded(files.rendered, {Statuses: CONVERGED}, files=WANTED)
    assert commands == []
    assert host.noops == ["2 files are as declared"]


def test_only_what_differs_is_written_and_never_on_the_command_line() -> None:
    actual = CONVERGED | {"/etc/ppn/a": None}
    commands, _ = yielded(files.rendered, {Statuses: actual}, files=WANTED)
    (command,) = commands
    assert [item["path"] for item in json.loads(command.connector_arguments["_stdin"])] == [
        "/etc/ppn/a"
    ]
    assert "c0ffee" not in str(command)


def test_mode_and_owner_alone_make_a_difference() -> None:
    loose = FileStatus("0644", "root", "root", WANTED["/etc/ppn/a"].status.sha256)
    assert files.plan(WANTED, CONVERGED | {"/etc/ppn/a": loose}) == ("/etc/ppn/a",)


def test_a_link_or_folder_in_the_place_of_a_file_differs() -> None:
    assert files.plan(WANTED, CONVERGED | {"/etc/ppn/b": FileStatus("0777", "root", "root", None)})


def test_unreadable_state_is_refused() -> None:
    commands, _ = yielded(files.rendered, {Statuses: None}, files=WANTED)
    assert "cannot read /etc/ppn/a, /etc/ppn/b" in refusal(commands)


def test_absent_removes_only_what_is_there() -> None:
    actual = {"/a": CONVERGED["/etc/ppn/a"], "/b": None}
    commands, _ = yielded(files.absent, {Statuses: actual}, paths=["/a", "/b"])
    assert texts(commands) == ["rm -- /a"]


def test_absent_with_nothing_there_is_no_change() -> None:
    commands, _ = yielded(files.absent, {Statuses: {"/a": None}}, paths=["/a"])
    assert commands == []


def test_absent_refuses_the_unknown() -> None:
    commands, _ = yielded(files.absent, {Statuses: None}, paths=["/a"])
    assert "cannot read /a" in refusal(commands)
