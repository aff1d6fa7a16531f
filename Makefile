# closedloop: everything a newcomer or CI runs. Bare `make` prints this list.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo up test check conformance integration e2e browser survival survive breakages bench bench-quality bench-bandits docs lock clean

help: ## Print the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "closedloop needs Python 3.11 or newer; set PYTHON=python3.x"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

install: $(STAMP) ## Make .venv with everything, pinned and hashed

demo: $(STAMP) ## Watch the loop learn from a year of shopping and in a market (two to three minutes)
	$(BIN)/closedloop demo

up: $(STAMP) ## Run the whole platform on this machine
	$(BIN)/closedloop up

test: $(STAMP) ## Unit, contract and architecture tests
	$(BIN)/python -m pytest tests/unit tests/contract tests/architecture

check: $(STAMP) ## Lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

conformance: $(STAMP) ## One bus suite on memory, the embedded broker and Apache Kafka
	$(BIN)/python -m pytest tests/conformance

integration: $(STAMP) ## Services against real Kafka and PostgreSQL
	$(BIN)/python -m pytest tests/integration

e2e: $(STAMP) ## The whole platform, driven from outside
	$(BIN)/python -m pytest tests/e2e

browser: $(STAMP) ## The site tag in a real Chromium on a shop's pages, and the examples of README.md and docs/integrate.md
	$(BIN)/python -m pytest tests/browser

survival: $(STAMP) ## Kill, cut and fill everything for some minutes; judged from outside
	$(BIN)/python -m pytest tests/survival

survive: $(STAMP) ## The same for MINUTES (30) after a proof by digests, with the table of docs/survival.md
	$(BIN)/python -m tests.survival --touchpoints $(or $(TOUCHPOINTS),200000) --learned 4 --minutes $(or $(MINUTES),30)

breakages: $(STAMP) ## Break the product on purpose, see which test goes red
	$(BIN)/python -m tests.survival.breakages

bench: $(STAMP) ## Measure against the bars; prints the table of docs/benchmarks.md
	$(BIN)/python -m tests.benchmarks

bench-quality: $(STAMP) ## How good the answers are on real baskets; prints the table of docs/quality.md
	$(BIN)/python -m tests.benchmarks.quality $(QUALITY)

bench-bandits: $(STAMP) ## Regret beside other bandits, and what showing causes where people buy anyway
	$(BIN)/python -m tests.benchmarks.bandits
	$(BIN)/python -m tests.benchmarks.bandits.buys_anyway

docs: $(STAMP) ## Write the generated reference, dashboards and golden schemas anew
	$(BIN)/python -m deploy.local.reference
	$(BIN)/python -m deploy.local.dashboards

lock: ## Pin all dependencies anew (needs uv)
	uv pip compile --quiet --python-version 3.11 --universal --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --extra dev pyproject.toml -o requirements.lock
	uv pip compile --quiet --python-version 3.11 --universal --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --extra image --constraint requirements.lock pyproject.toml \
		-o deploy/docker/requirements.lock

clean: ## Remove what the targets made, data of `up` and `demo` excepted
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
