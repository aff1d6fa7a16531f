"""``python -m services.recommender``: the recommender as a process."""

from __future__ import annotations

import os

if __name__ == "__main__":
    # Trap: before numpy is loaded. A request's matrices are small: a second thread costs more than it brings.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from libs.common.runtime import run
    from services.recommender.app import create
    from services.recommender.settings import RecommenderSettings

    run(RecommenderSettings, create, "recommender")
