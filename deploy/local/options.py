"""Options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

DATA_DIR = Path(".closedloop")


def data_dir_option(command: Callable[..., None]) -> Callable[..., None]:
    """--data-dir, the same for every command."""
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        default=DATA_DIR,
        envvar="CLOSEDLOOP_DATA_DIR",
        show_default=True,
        show_envvar=True,
        help="Directory of the platform.",
    )(command)
