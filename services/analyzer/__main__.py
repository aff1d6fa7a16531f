"""``python -m services.analyzer``: the analyzer as a process."""

from __future__ import annotations

from libs.common.runtime import run
from services.analyzer.app import create
from services.analyzer.settings import AnalyzerSettings

if __name__ == "__main__":
    run(AnalyzerSettings, create, "analyzer")
