"""`ppn iso`: the image that turns a bare machine into a node."""

from __future__ import annotations

import typer

from ppn.cli.iso import checkout, config, write

iso_app = typer.Typer(
    name="iso",
    help="The provisioning image: built from a lock, signed, written to a stick.",
    no_args_is_help=True,
)

for command in (
    checkout.build,
    checkout.cache,
    checkout.keys,
    checkout.lock,
    checkout.sign,
    checkout.verify,
):
    iso_app.command(context_settings=checkout.HANDED_ON, add_help_option=False)(command)

for own in (config.config, write.write):
    iso_app.command()(own)
