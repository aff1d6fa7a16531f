"""``python -m services.recommender``: the recommender as a process."""

from __future__ import annotations

from libs.common.runtime import run
from services.recommender.app import create
from services.recommender.settings import RecommenderSettings

if __name__ == "__main__":
    run(RecommenderSettings, create, "recommender")
