"""`python -m ppn.host.proxy`: the node proxy, started by systemd."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from ppn.errors import PpnError
from ppn.host.proxy.app import serve
from ppn.host.proxy.settings import PATH, read_settings
from ppn.log import configure_log


def main(
    key: Annotated[Path, typer.Option(help="The private key file: a credential of the service.")],
    settings: Annotated[Path, typer.Option(help="The settings file.")] = Path(PATH),
) -> None:
    """Run the node proxy until SIGTERM."""
    configure_log()
    try:
        asyncio.run(serve(read_settings(settings), key))
    except PpnError as error:
        print(f"ppn: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
