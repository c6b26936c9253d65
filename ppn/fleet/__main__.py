"""`python -m ppn.fleet`: a fleet controller, started by systemd."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ppn.errors import PpnError
from ppn.fleet.app import serve
from ppn.fleet.settings import PATH, read_settings
from ppn.log import configure_log


def main(
    key: Annotated[Path, typer.Option(help="The private key file: a credential of the service.")],
    settings: Annotated[Path, typer.Option(help="The settings file.")] = Path(PATH),
) -> None:
    """Run a fleet controller until SIGTERM."""
    configure_log()
    try:
        serve(read_settings(settings), key)
    except PpnError as error:
        print(f"ppn: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
