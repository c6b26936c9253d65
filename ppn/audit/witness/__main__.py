"""`python -m ppn.audit.witness`: a witness, started by systemd."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ppn.audit.witness.app import serve
from ppn.audit.witness.settings import PATH, read_settings
from ppn.errors import PpnError
from ppn.log import configure_log


def main(
    settings: Annotated[Path, typer.Option(help="The settings file.")] = Path(PATH),
) -> None:
    """Run a witness until SIGTERM."""
    configure_log()
    try:
        serve(read_settings(settings))
    except PpnError as error:
        print(f"ppn: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
