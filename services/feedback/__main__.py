"""``python -m services.feedback``: feedback as a process."""

from __future__ import annotations

from libs.common.runtime import run
from services.feedback.app import create
from services.feedback.settings import FeedbackSettings

if __name__ == "__main__":
    run(FeedbackSettings, create, "feedback")
