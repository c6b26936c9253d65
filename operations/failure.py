"""How an operation refuses: on its own host only, with a message, before it sends a command."""

from __future__ import annotations

from pyinfra.api import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State


def fail(message: str) -> FunctionCommand:
    """A command that fails this host and no other, after printing why.

    pyinfra ends the whole run, for every host, when an operation raises; a bad state of one host
    must not stop the others, so operations yield this and return.

    Args:
        message: names the object, the value and the next step.
    """

    def refuse(state: State, host: Host) -> bool:
        host.log_styled(message, fg="red")
        return False

    return FunctionCommand(refuse, (), {})


def unreadable(what: str) -> FunctionCommand:
    """A command that fails this host because a fact could not be read.

    Args:
        what: the thing that could not be read, for example `the state of ppn0`.
    """
    return fail(
        f"cannot read {what}: refusing to act on an unknown state. "
        "Run with -vv to see the command that failed, mend it, and run again."
    )
