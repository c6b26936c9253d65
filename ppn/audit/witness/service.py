"""A witness at work: judges what a log sends, remembers it, signs it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from ppn.audit.checkpoint import Checkpoint, parse_checkpoint, verified
from ppn.audit.note import (
    LOG,
    Note,
    NoteInvalid,
    Signer,
    Verifier,
    parse_note,
    parse_verifier,
)
from ppn.audit.witness.policy import (
    SizeConflict,
    Submission,
    WitnessRefusal,
    judge,
    parse_submission,
    refused,
)
from ppn.audit.witness.store import Kept, Store
from ppn.log import get_logger

log = get_logger("witness")


@dataclass
class Witness:
    """One witness.

    Args:
        signer: its name and key.
        logs: the logs it knows: where each is kept.
        store: its memory.
        clock: seconds since 1970.
    """

    signer: Signer
    logs: dict[str, IPv4Address]
    store: Store
    clock: Callable[[], float]
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def add_checkpoint(self, body: bytes, source: str, offered_key: str) -> str:
        """Sign a checkpoint that goes on from the one signed last; waits for the disk.

        Args:
            body: the request, as C2SP tlog-witness has it.
            source: the address it comes from.
            offered_key: the log's key as the log sends it along; of use the first time only.

        Returns:
            The cosignature's line.

        Raises:
            WitnessRefusal: with the reason.
            SizeConflict: it goes on from another size than was signed.
            MemoryDamaged: it cannot be remembered, so that it is not signed.
        """
        submission = parse_submission(body)
        try:
            origin = parse_checkpoint(parse_note(submission.note).text).origin
        except NoteInvalid as error:
            raise refused(error) from error
        with self._one_at_a_time:
            kept = self.store.get(origin) or self._first(origin, source, offered_key)
            offered = self._verified(submission.note, kept)
            last = (
                parse_checkpoint(parse_note(kept.checkpoint.encode()).text)
                if (kept.checkpoint)
                else None
            )
            self._judge(kept, last, offered, submission, source)
            note = parse_note(submission.note)
            made = self.signer.cosign(note.text, int(self.clock()))
            # Of all signatures the log's alone: with a stranger's, ours could be one too many.
            own = parse_verifier(kept.vkey).signature_in(note)
            whole = Note(note.text, (own, made)).encode().decode()
            self.store.put(kept.model_copy(update={"checkpoint": whole}))
        return made.line()

    def known(self) -> list[dict[str, object]]:
        """What was signed last of each log, and how many forks were seen."""
        found: list[dict[str, object]] = []
        for origin in sorted(self.logs):
            kept = self.store.get(origin)
            if kept is not None:
                found.append({**kept.model_dump(), "forks": self.store.forks(origin)})
        return found

    def _first(self, origin: str, source: str, offered_key: str) -> Kept:
        """A log that was never seen: its key is the one it sends from where it is kept."""
        address = self.logs.get(origin)
        if address is None:
            raise WitnessRefusal(
                f"{origin!r} is no log of this pool",
                code="audit_origin_unknown",
                constraint="logs of the inventory",
                hint="give its node the role tenant-proxy and run the deploy",
            )
        try:
            trusted = parse_verifier(offered_key)
        except NoteInvalid as error:
            raise refused(error) from error
        if source != str(address) or (trusted.name, trusted.kind) != (origin, LOG):
            raise WitnessRefusal(
                f"{source} may not say which key {origin} has",
                code="audit_key_wrong",
                constraint="address of the log",
                hint=f"the log itself sends its key, from {address}",
            )
        return Kept(origin=origin, vkey=trusted.text())

    def _verified(self, note: bytes, kept: Kept) -> Checkpoint:
        trusted: Verifier = parse_verifier(kept.vkey)
        try:
            return verified(note, trusted)
        except NoteInvalid as error:
            raise refused(error) from error

    def _judge(
        self,
        kept: Kept,
        last: Checkpoint | None,
        offered: Checkpoint,
        submission: Submission,
        source: str,
    ) -> None:
        verdict = judge(last, offered, submission)
        if verdict == "sign":
            return
        # A proof that fails says nothing of the log unless the log itself sent it.
        telling = verdict == "fork" or source == str(self.logs.get(kept.origin))
        if last is not None and telling:
            self.store.keep_fork(kept.origin, kept.checkpoint, submission.note)
        size = last.size if last else 0
        log.error("fork refused", origin=kept.origin, signed=size, offered=offered.size)
        if verdict == "fork":
            raise SizeConflict(size, submission.old, code="audit_fork")
        raise WitnessRefusal(
            f"nothing shows that the {offered.size} entries begin with the {size} signed before",
            code="audit_inconsistent",
            constraint="one history of a log",
            hint="run `ppn audit verify` on the log, with this witness's checkpoint",
        )
