"""`closedloop verify` follows events hop by hop, and says at which they are held up."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.rig import Up, closedloop
from tests.freezing import freeze, thaw


def test_verify_names_the_hop_that_holds_events_and_is_content_afterwards(start: Callable[..., Up]) -> None:
    up = start("--ephemeral").wait_ready()
    events = [{"type": "product_viewed", "channel": "web", "customer_id": f"c-{n}"} for n in range(50)]
    assert up.post("collector", "/v1/touchpoints", events).status_code == 202
    done = closedloop("verify", "--data-dir", str(up.data_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "operator 50" in done.stdout
    there = ["--data-dir", str(up.data_dir)]
    told = closedloop("report", *there)
    assert "  50 from operator" in told.stdout.splitlines(), told.stdout + told.stderr
    refused = closedloop("evaluate", *there)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "Error: evaluation of other policies is not supported yet (404 not_supported)\n"

    broker = up.pid_of("broker")
    freeze(broker)
    try:
        assert up.post("collector", "/v1/touchpoints", events).status_code == 202
        held = closedloop("verify", "--patience", "8", "--data-dir", str(up.data_dir))
    finally:
        thaw(broker)
    assert held.returncode == 1
    assert "does not balance at collector → bus: " in held.stdout + held.stderr

    done = closedloop("verify", "--patience", "60", "--data-dir", str(up.data_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "operator 100" in done.stdout
