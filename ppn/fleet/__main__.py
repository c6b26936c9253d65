"""`python -m ppn.fleet`: a fleet controller, started by systemd."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppn.fleet.app import serve
from ppn.fleet.settings import PATH, FleetSettings
from ppn.service import run_service
from ppn.settings import read_own


def main(
    key: Annotated[Path, typer.Option(help="The private key file: a credential of the service.")],
    settings: Annotated[Path, typer.Option(help="The settings file.")] = Path(PATH),
) -> None:
    """Run a fleet controller until SIGTERM."""
    run_service(lambda: serve(read_own(settings, FleetSettings), key))


if __name__ == "__main__":
    typer.run(main)
