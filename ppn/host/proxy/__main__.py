"""`python -m ppn.host.proxy`: the node proxy, started by systemd."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from ppn.host.proxy.app import serve
from ppn.host.proxy.settings import PATH, read_settings
from ppn.service import run_service


def main(
    key: Annotated[Path, typer.Option(help="The private key file: a credential of the service.")],
    settings: Annotated[Path, typer.Option(help="The settings file.")] = Path(PATH),
) -> None:
    """Run the node proxy until SIGTERM."""
    run_service(lambda: asyncio.run(serve(read_settings(settings), key)))


if __name__ == "__main__":
    typer.run(main)
