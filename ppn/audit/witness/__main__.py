"""`python -m ppn.audit.witness`: a witness, started by systemd."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppn.audit.witness.app import serve
from ppn.audit.witness.settings import PATH, WitnessSettings
from ppn.service import run_service
from ppn.settings import read_own


def main(
    settings: Annotated[Path, typer.Option(help="The settings file.")] = Path(PATH),
) -> None:
    """Run a witness until SIGTERM."""
    run_service(lambda: serve(read_own(settings, WitnessSettings)))


if __name__ == "__main__":
    typer.run(main)
