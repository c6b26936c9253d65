"""`python -m ppn.tenant`: a tenant proxy, started by systemd."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from ppn.service import run_service
from ppn.settings import read_own
from ppn.tenant.app import serve
from ppn.tenant.settings import PATH, TenantSettings


def main(
    key: Annotated[Path, typer.Option(help="The private key file: a credential of the service.")],
    settings: Annotated[Path, typer.Option(help="The settings file.")] = Path(PATH),
) -> None:
    """Run a tenant proxy until SIGTERM."""
    run_service(lambda: asyncio.run(serve(read_own(settings, TenantSettings), key)))


if __name__ == "__main__":
    typer.run(main)
