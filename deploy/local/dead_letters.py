"""`closedloop dead-letters`: list, show, replay."""

from __future__ import annotations

import json
from pathlib import Path

import click

from deploy.local.options import data_dir_option


@click.group("dead-letters")
def dead_letters() -> None:
    """Records that could not be processed."""


_code_option = click.option("--code", help="Only those with this code, e.g. id_reuse.")
_partition_option = click.option(
    "--partition", type=click.IntRange(0, 11), help="Only those of this partition."
)
_since_option = click.option("--since", help="Only from this time of the journal on (ISO 8601).")
_until_option = click.option("--until", help="Only those before this time of the journal (ISO 8601).")


@dead_letters.command("list")
@click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True)
@click.option("--before", type=int, help="Only those older than the one with this id.")
@_code_option
@_partition_option
@_since_option
@_until_option
@data_dir_option
def list_dead_letters(limit: int, data_dir: Path, **which: str | int | None) -> None:
    """List dead letters, newest first: id, when, where, who sent it, why."""
    from deploy.local.maintenance import dead_letter_lines

    for line in dead_letter_lines(data_dir, limit, **which):
        click.echo(line)


@dead_letters.command("show")
@click.argument("id", type=int)
@data_dir_option
def show_dead_letter(id: int, data_dir: Path) -> None:
    """Show one dead letter with its headers and content, as JSON."""
    from deploy.local.maintenance import dead_letter

    click.echo(json.dumps(dead_letter(data_dir, id), indent=2, ensure_ascii=False))


@dead_letters.command("replay")
@click.option("--id", type=int, help="Only this one.")
@_code_option
@_partition_option
@_since_option
@_until_option
@data_dir_option
def replay_dead_letters(data_dir: Path, **which: str | int | None) -> None:
    """Have dead letters taken again as if they had just come: say which."""
    from deploy.local import maintenance

    if all(value is None for value in which.values()):
        raise click.UsageError("say which: --id, --code, --partition, --since or --until")
    click.echo(f"to be taken again: {maintenance.replay_dead_letters(data_dir, **which):,}")
