"""The same platform under its own supervisor: `closedloop up`, which can be killed like everything else."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

import psutil

from deploy.local.supervisor import tail_of
from tests.e2e.rig import Up
from tests.survival.world import KEY, Shape, World


class UpWorld(World):
    """`closedloop up` on a data directory, started again on it after each death of the supervisor."""

    def __init__(self, base: Path, shape: Shape) -> None:
        super().__init__(base, shape)
        self._up: Up | None = None
        self._starts = 0

    @property
    def up(self) -> Up:
        if self._up is None:
            raise ConnectionError("the supervisor is down")
        return self._up

    @property
    def kafka(self) -> str:
        return str(self.up.record["kafka"])

    @property
    def postgres(self) -> str:
        return str(self.up.record["postgres"])

    def port(self, name: str) -> int:
        return int(self.up.url(name.partition("-")[0]).rpartition(":")[2])

    def life(self, name: str) -> tuple[int, bool]:
        return self._starts, self._up is not None

    def start(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        os.environ["CLOSEDLOOP_DEV_KEY"] = KEY
        self._begin()

    def _begin(self) -> None:
        up = Up("--data-dir", str(self.data_dir), "--no-holdout", "--broker", self.shape.broker)
        try:
            up.wait_ready()
        except BaseException:
            up.close()
            raise
        self._up, self._starts = up, self._starts + 1

    def murder(self) -> None:
        """kill -9 of the supervisor; the kernel ends its children, and a new one takes the directory over."""
        dying, self._up = self.up, None
        children = dying.murder()
        self.keeper.kills.append((time.monotonic(), "up", "kill"))
        psutil.wait_procs(children, timeout=10)
        self._begin()

    def close(self) -> None:
        if self._up is not None:
            self._up.close()
        super().close()

    def environment(self, name: str) -> dict[str, str]:
        return {
            "CLOSEDLOOP_DATA_DIR": str(self.data_dir),
            "CLOSEDLOOP_KAFKA": self.kafka,
            "CLOSEDLOOP_POSTGRES": self.postgres,
            "CLOSEDLOOP_HOLDOUT": "0,0",
        }

    def logs(self) -> str:
        return "\n".join(tail_of(path, 1_500) for path in sorted((self.data_dir / "logs").glob("*.log")))


def supervisor_killed(world: World, random: Random, seconds: float) -> None:
    """The supervisor dies twice."""
    assert isinstance(world, UpWorld)
    for _ in range(2):
        time.sleep(seconds / 4 * (0.5 + random.random()))
        world.murder()
    time.sleep(seconds / 4)
