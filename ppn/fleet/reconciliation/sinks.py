"""Delivers notices: by HTTP, by mail, into a file; each call bounded in time."""

from __future__ import annotations

import json
import os
import smtplib
import ssl
import stat
from collections.abc import Sequence
from contextlib import closing, suppress
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path

import httpx

from ppn.durable import sync_folder
from ppn.errors import PpnError
from ppn.fleet.reconciliation.notices import Notice
from ppn.fleet.reconciliation.settings import LinesFile, MailServer, Sink, Webhook
from ppn.log import get_logger
from ppn.text import printable

# For each step of a delivery; the whole of it is bounded by who calls.
SECONDS = 10.0
MAX_SECRET_BYTES = 4096

log = get_logger("reconciliation")


class SinkFailed(PpnError):
    """A sink that did not take what it was given."""

    code = "sink_failed"


def deliver(sink: Sink, notices: Sequence[Notice], dropped: int, by: str) -> None:
    """Give notices to a sink; when this returns it has taken them all.

    A delivery that is cut off may be repeated: each notice has an id that stays the same.

    Args:
        sink: who is told.
        notices: what is told.
        dropped: older notices that were given up before.
        by: the node that tells.

    Raises:
        SinkFailed: it may have taken them, or not.
    """
    try:
        if isinstance(sink, Webhook):
            _post(sink, notices, dropped, by)
        elif isinstance(sink, MailServer):
            _mail(sink, notices, dropped, by)
        else:
            _append(sink, notices, dropped, by)
    except (OSError, httpx.HTTPError, httpx.InvalidURL, smtplib.SMTPException) as error:
        raise SinkFailed(f"sink {sink.name}: {error or type(error).__name__}") from error


def _post(sink: Webhook, notices: Sequence[Notice], dropped: int, by: str) -> None:
    headers = {"Idempotency-Key": notices[-1].id}
    if sink.token_file is not None:
        headers["Authorization"] = f"Bearer {_secret(sink.token_file)}"
    body = {"by": by, "dropped": dropped, "notices": [one.model_dump() for one in notices]}
    with (
        httpx.Client(verify=_context(sink.trust), trust_env=False, timeout=SECONDS) as client,
        # The answer's body is not read: it may have no end.
        client.stream("POST", sink.url, json=body, headers=headers) as answer,
    ):
        if not answer.is_success:
            raise SinkFailed(f"sink {sink.name}: it answered with status {answer.status_code}")


def _mail(sink: MailServer, notices: Sequence[Notice], dropped: int, by: str) -> None:
    message = mail_of(sink, notices, dropped, by)
    with closing(_connected(sink)) as server:
        if sink.encryption == "starttls":
            server.starttls(context=_context(sink.trust))
        if sink.user is not None and sink.password_file is not None:
            server.login(sink.user, _secret(sink.password_file))
        refused = server.send_message(message)
        # It is taken; were a strange farewell an error, it would be sent again and again.
        with suppress(OSError):
            server.quit()
    if refused:
        # The others have it; to send it again would tell them twice.
        log.warning("recipients refused", sink=sink.name, recipients=sorted(refused))


def _connected(sink: MailServer) -> smtplib.SMTP:
    if sink.encryption == "tls":
        context = _context(sink.trust)
        return smtplib.SMTP_SSL(sink.host, sink.port, timeout=SECONDS, context=context)
    return smtplib.SMTP(sink.host, sink.port, timeout=SECONDS)


def mail_of(sink: MailServer, notices: Sequence[Notice], dropped: int, by: str) -> EmailMessage:
    """Notices as one mail that a person can read.

    Args:
        sink: from whom and to whom.
        notices: what is told.
        dropped: older notices that were given up before.
        by: the node that tells.
    """
    message = EmailMessage()
    message["From"], message["To"] = sink.sender, ", ".join(sink.recipients)
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{notices[-1].id}@ppn>"
    message["Subject"] = _subject(notices)
    parts = [_paragraph(one) for one in notices]
    if dropped:
        parts.append(f"{dropped} older notices were given up: this sink took none for too long.")
    message.set_content("\n\n".join([*parts, f"Told by {by}; see `ppn reconcile alerts` there."]))
    return message


def _append(sink: LinesFile, notices: Sequence[Notice], dropped: int, by: str) -> None:
    lines = [json.dumps({"by": by, **one.model_dump()}) + "\n" for one in notices]
    if dropped:
        lines.append(json.dumps({"by": by, "event": "dropped", "count": dropped}) + "\n")
    fresh = not sink.path.exists()
    left = memoryview("".join(lines).encode())
    # Unbuffered: what a full disk did not take must not follow when the file is closed.
    with sink.path.open("ab", buffering=0) as file:
        start = file.tell()
        try:
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            # A full disk may have taken a part of a line.
            os.ftruncate(file.fileno(), start)
            raise
    if fresh:
        sync_folder(sink.path.parent)


def _subject(notices: Sequence[Notice]) -> str:
    if len(notices) > 1:
        raised = sum(one.event == "raised" for one in notices)
        return f"[ppn] {raised} alerts raised, {len(notices) - raised} cleared"
    (one,) = notices
    return printable(f"[ppn] {one.event}: {one.code} {one.subject}")


def _paragraph(one: Notice) -> str:
    where = f" on {one.node}" if one.node else ""
    lines = [f"{one.at} {one.event}: {one.code}", f"{one.subject}{where}: {one.message}"]
    if one.hint and one.event == "raised":
        lines.append(f"Next step: {one.hint}")
    return "\n".join(printable(line) for line in lines)


def _context(trust: Path | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=trust)


def _secret(path: Path) -> str:
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise SinkFailed(f"{path} can be read by others", hint=f"chmod 600 {path}")
        secret = file.read(MAX_SECRET_BYTES).strip()
    if not secret or not all(0x20 <= sign < 0x7F for sign in secret):
        # A header or a login takes no others; which one it was is nobody's business.
        raise SinkFailed(
            f"{path} is empty, or holds what is no printable ASCII character",
            hint="write the secret alone into it, in one line",
        )
    return secret.decode("ascii")
