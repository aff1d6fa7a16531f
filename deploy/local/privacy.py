"""Commands about one person: forget him, and give out all that is held about him."""

from __future__ import annotations

import json
from pathlib import Path

import click

from deploy.local.options import data_dir_option

CUSTOMER = click.argument("customer")


@click.command()
@CUSTOMER
@click.option("--compact", is_flag=True, help="Write all stores anew, so that no deleted byte is left.")
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Wait until it is applied everywhere."
)
@data_dir_option
def erase(customer: str, compact: bool, wait: bool, data_dir: Path) -> None:
    """Forget CUSTOMER (a visitor is written anon:X) and all visitors linked to him, and keep him away.

    Prints a certificate, without personal data, of what was done in which store, and keeps it under
    erasures/ of the data directory. The key never comes back: a returning customer needs another one.
    """
    from deploy.local.erasing import Erasing

    with Erasing(data_dir) as erasing:
        erasure = erasing.request(customer)
        if not wait and not compact:
            click.echo(json.dumps({"erasure": erasure, "complete": False}, indent=2))
            return
        click.echo(json.dumps(erasing.certify(erasure, customer, compact), indent=2))


@click.command()
@data_dir_option
def erasures(data_dir: Path) -> None:
    """List the certificates of erasures, oldest first."""
    from deploy.local.erasing import certificates

    for certificate in certificates(data_dir):
        compacted = "compacted" if certificate["compacted"] else "not compacted"
        click.echo(
            f"{certificate['applied_at']}  {certificate['erasure']}  {certificate['keys']} keys  {compacted}"
        )


@click.command()
@CUSTOMER
@data_dir_option
def export(customer: str, data_dir: Path) -> None:
    """Print all that is held about CUSTOMER (a visitor is written anon:X) as one JSON document."""
    from deploy.local.erasing import exported

    click.echo(json.dumps(exported(data_dir, customer), indent=2, ensure_ascii=False))
