"""How systemd starts a service of the pool, and what it sees when one cannot start."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ppn.errors import PpnError
from ppn.log import configure_log


def run_service(serve: Callable[[], None]) -> None:
    """Run a service to its end; where it fails, one line says why and the exit code is 1.

    Args:
        serve: the service, until SIGTERM.
    """
    configure_log()
    try:
        serve()
    except PpnError as error:
        print(f"ppn: {error}", file=sys.stderr)
        sys.exit(1)
