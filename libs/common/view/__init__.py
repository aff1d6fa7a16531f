"""Compacted topics materialised locally, together with their offsets: read in microseconds."""

from libs.common.view.disk import View
from libs.common.view.follower import OnBatch
from libs.common.view.memory import MemoryView

__all__ = ["MemoryView", "OnBatch", "View"]
