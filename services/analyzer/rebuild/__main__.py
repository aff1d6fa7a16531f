"""``python -m services.analyzer.rebuild [--check]``: rebuild, and print what came of it as JSON."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing import forkserver

if __name__ == "__main__":
    # Trap: before numpy is loaded, as in the learner: other threads add up in another order.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Those who fold are forked from one who has imported all they need, while this one imports the rest.
    multiprocessing.set_forkserver_preload(["services.analyzer.rebuild.workers"])
    forkserver.ensure_running()

    import asyncio

    import msgspec

    from libs.common.errors import ClosedloopError
    from services.analyzer.learner.fold import Parameters
    from services.analyzer.learner.settings import LearnerSettings
    from services.analyzer.rebuild.run import rebuild
    from services.analyzer.rebuild.workers import Plan
    from services.analyzer.settings import AnalyzerSettings

    settings = AnalyzerSettings()
    plan = Plan(
        postgres=settings.postgres.get_secret_value(),
        kafka=settings.kafka,
        switch="--check" not in sys.argv[1:],
        panel=settings.panel_share,
        learning=Parameters.forgetting(LearnerSettings().half_life_days),
        processes=settings.rebuild_processes or os.cpu_count() or 1,
    )
    try:
        outcome = asyncio.run(rebuild(plan))
    except ClosedloopError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(msgspec.json.encode(outcome).decode())
