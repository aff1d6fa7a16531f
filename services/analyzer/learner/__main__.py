"""``python -m services.analyzer.learner``: the learner as a process."""

from __future__ import annotations

import os

if __name__ == "__main__":
    # Trap: before numpy is loaded. One thread adds up in one order, and leaves the other cores to others.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from libs.common.runtime import run
    from services.analyzer.learner.app import create
    from services.analyzer.learner.settings import LearnerSettings

    run(LearnerSettings, create, "learner")
