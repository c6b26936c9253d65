"""What the exit code of every `ppn` command means; scripts may rely on it."""

from __future__ import annotations

from enum import IntEnum

from ppn.errors import PpnError, Refusal

# What this program says itself, or sees another way than the status of a service would have it.
OWN_STATUS = {
    # A witness forbids what it cannot believe; for a script a file is damaged or another one.
    "audit_checkpoint_malformed": 500,
    "audit_damaged": 500,
    "audit_inconsistent": 500,
    "audit_key_malformed": 500,
    "audit_key_wrong": 500,
    "audit_note_malformed": 500,
    "audit_signature_wrong": 500,
    "certificate_refused": 403,
    "controller_unreachable": 503,
    "fetch_failed": 503,
    "plain_http": 403,
    # HTTP says that it is forbidden; for a script it is a lack of room like any other.
    "quota_exceeded": 409,
    "server_untrusted": 403,
    "token_refused": 401,
    "token_unreadable": 403,
}


class WrongUsage(PpnError):
    """The command line is wrong."""

    code = "usage"


class Exit(IntEnum):
    """The exit codes."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    NOT_FOUND = 4
    UNREACHABLE = 5
    UNAUTHORISED = 6
    FINDINGS = 7


MEANING = {
    Exit.DONE: "done, and nothing is wrong",
    Exit.FAILED: "something failed that was begun, or a file is missing or damaged",
    Exit.USAGE: "the command line is wrong; nothing was asked",
    Exit.REFUSED: "refused, with the constraint that binds; nothing was changed",
    Exit.NOT_FOUND: "there is no such VM, node or thing",
    Exit.UNREACHABLE: "nobody answered in time, or something needed is away; it may be repeated",
    Exit.UNAUTHORISED: "not allowed: token, address or certificate, ours or the server's",
    Exit.FINDINGS: "it was looked, and something is wrong: the output says what",
}


def exit_of(error: PpnError) -> Exit:
    """The exit code of an error, by the status that a service would give it.

    Args:
        error: what a command ended with.
    """
    if isinstance(error, WrongUsage):
        return Exit.USAGE
    # Imported here: a command that goes well needs no wire.
    from ppn.wire.problems import status_of

    status = OWN_STATUS.get(error.code) or status_of(error)
    match status:
        case 401 | 403:
            return Exit.UNAUTHORISED
        case 404:
            return Exit.NOT_FOUND
        case 502 | 503 | 504:
            return Exit.UNREACHABLE
        case 500:
            return Exit.FAILED
    return Exit.REFUSED if isinstance(error, Refusal) or status < 500 else Exit.FAILED


def table() -> str:
    """All of them, as the root command's help ends."""
    return "\n\n".join(f"{code.value}  {meaning}." for code, meaning in MEANING.items())
