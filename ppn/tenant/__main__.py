"""`python -m ppn.tenant`: a tenant proxy, started by systemd."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from ppn.errors import PpnError
from ppn.log import configure_log
from ppn.tenant.app import serve
from ppn.tenant.settings import PATH, read_settings


def main(
    key: Annotated[Path, typer.Option(help="The private key file: a credential of the service.")],
    settings: Annotated[Path, typer.Option(help="The settings file.")] = Path(PATH),
) -> None:
    """Run a tenant proxy until SIGTERM."""
    configure_log()
    try:
        asyncio.run(serve(read_settings(settings), key))
    except PpnError as error:
        print(f"ppn: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
