"""What few bought yet, so that cold offers get their chance; what becomes of it the response model learns."""

from __future__ import annotations

from libs.common.scoring.sources.look import Look, Positions, first_open

NEW = 10


def new(look: Look) -> Positions:
    """Open products that few bought, the newest in the catalogue first."""
    return first_open(look, look.scene.tables.rankings.fresh, NEW)
