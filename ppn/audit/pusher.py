"""Sends a log's checkpoints to its witnesses, in the background, and keeps what they sign.

A witness that is away is tried again, ever less often; nothing that is logged waits for it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import httpx

from ppn.audit.checkpoint import Checkpoint, verified
from ppn.audit.merkle import consistency
from ppn.audit.note import (
    LOG,
    MAX_NOTE_BYTES,
    WITNESS,
    NoteInvalid,
    Signature,
    Signer,
    Verifier,
    parse_note,
    parse_signatures,
    parse_verifier,
    to_base64,
    with_signatures,
)
from ppn.audit.proof import COSIGNED
from ppn.audit.publish import CHECKPOINT
from ppn.audit.tiles import Tiles, TileUnusable
from ppn.audit.witness.policy import KEY_HEADER
from ppn.audit.witness.settings import WitnessAt
from ppn.durable import write_atomic
from ppn.errors import PpnError
from ppn.log import get_logger
from ppn.wire.problems import ProblemBody

SECONDS = 10.0
PUSH_SECONDS = 2.0
MOST_SECONDS = 60.0
MAX_ANSWER = 64 * 1024
# A witness that cannot go on until someone looks at it.
OWN_TROUBLE = frozenset({"witness_damaged", "witness_forgot"})

log = get_logger("audit")


class PushFailed(PpnError):
    """A witness that has not signed."""

    code = "witness_silent"


@dataclass(frozen=True)
class PushStatus:
    """How far a witness is.

    Args:
        witness: its name.
        size: of the last checkpoint it signed, as far as this process knows.
        trouble: why it did not sign the next one; empty when it did.
        code: of that trouble.
    """

    witness: str
    size: int = 0
    trouble: str = ""
    code: str = ""


class Pusher:
    """Keeps one witness up to date with one log.

    Args:
        folder: the log's.
        signer: the log's name and key.
        witness: whom to send to.
    """

    def __init__(self, folder: Path, signer: Signer, witness: WitnessAt) -> None:
        self._folder = folder
        self._own = signer.verifier(LOG)
        self._witness = witness
        self._file = folder / COSIGNED / f"{quote(witness.name, safe='')}.note"
        # Asked once at each start: only the witness knows whether this log was put back in time.
        self._signed: Checkpoint | None = None
        self.status = PushStatus(witness.name, self._remembered())

    def run(self, closed: threading.Event) -> None:
        """Send what is published until the log is closed.

        Args:
            closed: set when it is.
        """
        pause = PUSH_SECONDS
        while not closed.wait(pause):
            try:
                self.push()
                pause = PUSH_SECONDS
            except (PpnError, OSError) as error:
                self._note_trouble(error)
                pause = min(pause * 2, MOST_SECONDS)

    def push(self) -> None:
        """Send the published checkpoint, unless the witness has signed it.

        Raises:
            PushFailed: it does not answer, or not as a witness does; `audit_rollback`: it has
                signed a longer log than this one; `audit_fork`: it has signed another one.
            NoteInvalid: its signature is not its own.
            OSError: a file cannot be read or written.
        """
        path = self._folder / CHECKPOINT
        if not path.exists():
            return
        data = path.read_bytes()
        checkpoint = verified(data, self._own)
        if checkpoint == self._signed and not self.status.trouble:
            return
        with httpx.Client(trust_env=False, timeout=SECONDS, base_url=self._witness.url) as client:
            made = self._cosignature(client, data, checkpoint)
        note = parse_note(data)
        self._file.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomic(self._file, with_signatures(note, (made,)).encode())
        self._signed = checkpoint
        self.status = PushStatus(self._witness.name, checkpoint.size)

    def _cosignature(self, client: httpx.Client, data: bytes, checkpoint: Checkpoint) -> Signature:
        size = min(self.status.size, checkpoint.size)
        status, text = self._add(client, data, checkpoint, size)
        if status == httpx.codes.CONFLICT:
            size = _size(text)
            if size > checkpoint.size:
                raise PushFailed(
                    f"{self._witness.name} has signed {size} entries, and there are"
                    f" {checkpoint.size}",
                    code="audit_rollback",
                    hint="entries are lost: run `ppn audit verify` with the witness's checkpoint",
                )
            status, text = self._add(client, data, checkpoint, size)
        if status in (httpx.codes.CONFLICT, httpx.codes.UNPROCESSABLE_ENTITY):
            raise PushFailed(
                f"{self._witness.name} has signed another history of this log",
                code="audit_fork",
                hint="run `ppn audit verify` with the witness's checkpoint",
            )
        if status != httpx.codes.OK:
            raise _refused(self._witness.url, status, text)
        trusted = self._trusted(client)
        found = parse_note(data).text
        for one in parse_signatures(text):
            if (one.name, one.key_id) == (trusted.name, trusted.key_id) and trusted.verifies(
                found, one
            ):
                return one
        raise PushFailed(f"{self._witness.url} has not signed as {self._witness.name}")

    def _add(
        self, client: httpx.Client, data: bytes, checkpoint: Checkpoint, old: int
    ) -> tuple[int, str]:
        tiles = Tiles(self._folder, checkpoint.size)
        try:
            proof = consistency(tiles.node, old, checkpoint.size)
        except TileUnusable as error:
            raise PushFailed(f"{error} is missing", code="audit_tile_missing") from error
        lines = [f"old {old}", *map(to_base64, proof), "", ""]
        body = "\n".join(lines).encode() + data
        return self._ask(client, "POST", "/add-checkpoint", body)

    def _ask(
        self, client: httpx.Client, method: str, path: str, body: bytes = b""
    ) -> tuple[int, str]:
        """The status and the text of an answer, which a witness may not draw out at will."""
        end, found = time.monotonic() + SECONDS, bytearray()
        headers = {KEY_HEADER: self._own.text()}
        try:
            with client.stream(method, path, content=body, headers=headers) as answer:
                for part in answer.iter_raw():
                    found += part
                    if len(found) > MAX_ANSWER or time.monotonic() > end:
                        raise PushFailed(f"{self._witness.url} does not end its answer")
        except httpx.HTTPError as error:
            raise PushFailed(f"{self._witness.url} does not answer: {error}") from error
        return answer.status_code, found.decode("utf-8", errors="replace")

    def _trusted(self, client: httpx.Client) -> Verifier:
        """The witness's key: the one it showed first."""
        path = self._file.with_suffix(".vkey")
        if path.exists():
            return parse_verifier(path.read_text(encoding="utf-8", errors="replace"))
        found = parse_verifier(self._ask(client, "GET", "/vkey")[1])
        if (found.name, found.kind) != (self._witness.name, WITNESS):
            raise PushFailed(f"{self._witness.url} is {found.name}, not {self._witness.name}")
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomic(path, (found.text() + "\n").encode())
        return found

    def _remembered(self) -> int:
        """The size that the witness signed last, as far as is known here."""
        try:
            with open(self._file, "rb") as file:
                return verified(file.read(MAX_NOTE_BYTES + 1), self._own).size
        except (OSError, NoteInvalid):
            return 0

    def _note_trouble(self, error: PpnError | OSError) -> None:
        code = error.code if isinstance(error, PpnError) else "audit_unavailable"
        if (code, str(error)) != (self.status.code, self.status.trouble):
            say = log.error if code in ("audit_rollback", "audit_fork") else log.warning
            say("witness has not signed", witness=self._witness.name, code=code, error=str(error))
        self.status = replace(self.status, trouble=str(error), code=code)


def _refused(url: str, status: int, text: str) -> PushFailed:
    """What a witness says of itself when it does not sign."""
    try:
        problem = ProblemBody.model_validate_json(text)
    except ValueError:
        return PushFailed(f"{url} answers {status}")
    code = problem.code if problem.code in OWN_TROUBLE else PushFailed.code
    return PushFailed(f"{url} answers {status}: {problem.detail[:200]}", code=code)


def _size(text: str) -> int:
    text = text.strip()
    if not text.isdecimal() or len(text) > 16:
        raise PushFailed("a witness names no size", code="witness_silent")
    return int(text)
