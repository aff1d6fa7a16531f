"""The examples of README.md and docs/integrate.md as they stand there, against a running platform."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.browser.rig import Shop, SiteKey, Visit, body_of
from tests.e2e.rig import ROOT, Up, eventually

FIRST_STEPS = re.findall(r"^```bash\n(AUTH=.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "docs" / "integrate.md").read_text(), re.M | re.S)
STRICT = 'set -euo pipefail\ncurl() { command curl --fail-with-body -sS "$@"; echo; }\n'


def blocks_in(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


def here(text: str, up: Up) -> str:
    """The example, with the ports of this platform."""
    text = re.sub(r"localhost:800(\d)", lambda port: f"127.0.0.1:{up.base + int(port[1])}", text)
    return re.sub(r'":800(\d)"', lambda port: f'":{up.base + int(port[1])}"', text)


def words_of(up: Up, customer: str) -> set[str]:
    """Types of what the platform holds of a customer."""
    answer = up.get("analyzer", f"/v1/customers/{customer}/timeline")
    return {entry["type"] for entry in answer.json()} if answer.status_code == 200 else set()


@pytest.fixture(scope="module")
def site_of_the_guide(up: Up, shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> SiteKey:
    """Runs all shell examples in their order, and reads the publishable key that one of them prints."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / ".closedloop").symlink_to(up.data_dir)
    (folder / "closedloop").symlink_to(Path(sys.executable).parent / "closedloop")
    script = here("\n".join(blocks_in("bash")), up).replace("https://shop.example", shop.origin)
    ran = subprocess.run(
        ["bash", "-c", STRICT + script],
        cwd=folder,
        env={"PATH": f"{folder}:{os.environ['PATH']}", "KEY": up.printed("key"), "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = ran.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("pk_"))
    return SiteKey(lines[at], lines[at - 1])


def test_guide_has_an_example_for_everybody() -> None:
    languages = Counter(name for name, _ in BLOCKS)
    assert languages["bash"] >= 8
    assert languages["python"] >= 2
    assert set(languages) == {"bash", "python", "html", "js"}


def test_first_steps_of_the_readme_close_the_loop(up: Up) -> None:
    (steps,) = FIRST_STEPS
    visitor, customer = "v-readme", "c-readme"
    steps = steps.replace("v-1", visitor).replace("c-1", customer)
    # Products of its own, which go again: they have no page, and the other tests' offers have.
    for product in (products := ("coffee", "filter", "grinder")):
        steps = steps.replace(f'"{product}"', f'"{product}-readme"')
    ran = subprocess.run(
        ["bash", "-c", STRICT + here(steps, up)],
        env={**os.environ, "KEY": up.printed("key"), "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for product in products:
        gone = up.client.delete(up.url("recommender") + f"/v1/products/{product}-readme")
        assert gone.status_code in (200, 204), gone.text
    wanted = {"identity_linked", "product_viewed", "decision_made", "clicked"}
    assert wanted == {entry["type"] for entry in json.loads(ran.stdout.splitlines()[-1])}


def test_shell_examples_are_answered(site_of_the_guide: SiteKey, up: Up) -> None:
    eventually(lambda: {"order_completed", "clicked"} <= words_of(up, "c-1"), 30.0)


@pytest.mark.parametrize("number", range(len(blocks_in("python"))))
def test_python_example_runs(number: int, up: Up, site_of_the_guide: SiteKey) -> None:
    key = up.printed("key")
    ran = subprocess.run(
        [sys.executable, "-c", f"KEY = {key!r}\n" + here(blocks_in("python")[number], up)],
        env={"KEY": key, "IDENTITY_SECRET": site_of_the_guide.identity_secret, "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_call_of_the_example_is_in_the_customers_timeline(up: Up, site_of_the_guide: SiteKey) -> None:
    wanted = {"call_started", "call_ended", "shown", "declined"}
    eventually(lambda: wanted <= words_of(up, "c-1"), 30.0)


@pytest.mark.parametrize("number", range(len(blocks_in("html"))))
def test_page_example_shows_offers(
    number: int, up: Up, shop: Shop, site_of_the_guide: SiteKey, visit: Visit
) -> None:
    html = here(blocks_in("html")[number], up).replace("pk_…", site_of_the_guide.key)
    visit.page.goto(shop.serve(f"/guide/{number}", html))
    visit.page.wait_for_selector("section article b")
    visit.picture("guide")
    visitor = f"anon:{visit.anonymous_id}"
    visit.wait(lambda: {"page_viewed", "product_viewed", "shown"} <= set(visit.words(visitor)))
    assert "€" in visit.page.locator("article span").first.inner_text()
    assert visit.errors == []


@pytest.mark.parametrize("number", range(len(blocks_in("js"))))
def test_fetch_example_is_answered(
    number: int, up: Up, shop: Shop, site_of_the_guide: SiteKey, visit: Visit
) -> None:
    code = here(blocks_in("js")[number], up).replace("pk_…", site_of_the_guide.key)
    visit.page.goto(shop.serve("/empty", "<title>Empty</title>"))
    visit.page.evaluate(f"(async () => {{ {code} }})()")
    visitor = f"anon:{body_of(visit.posts('/v1/recommendations')[0])['anonymous_id']}"
    visit.wait(lambda: "shown" in visit.words(visitor))
