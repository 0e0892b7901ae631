# Needs make and Python 3.11 or later; everything else comes into .venv. `make help` lists the targets.

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.set-up
PYTHON ?=
ARGS   ?=
WORKERS ?= 2

# Hundreds of processes start in the tests: without its cached bytecode each compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup lock up test check bench chaos clean compose-up compose-down compose-test

help: ## Show this list
	@echo "make TARGET [ARGS='...'], where TARGET is one of:"
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  %-12s %s\n' "$$name" "$$text"; done

setup: $(STAMP) ## Make .venv with everything that the project needs

up: setup ## Run the example app: a webhook, Python and SQL nodes, a chart
	@exec $(BIN)/tailrace up examples/github $(ARGS)

test: setup ## Run the tests: both logs, a real Kafka among them
	$(BIN)/python -m pytest -m "not chaos and not compose" -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: setup ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup ## Measure, each against its baseline; ARGS="NAME --json" for one
	$(BIN)/python -m benchmarks $(or $(ARGS),all)

chaos: setup ## The long versions of the kill, proxy and simulator tests
	$(BIN)/python -m pytest -m chaos $(ARGS)

compose-up: setup ## Start Kafka, an S3 server and all services in docker; ARGS="--scale runner=3"
	$(BIN)/python deploy/compose.py up $(ARGS)

compose-down: setup ## Stop them; ARGS=--volumes deletes their data
	$(BIN)/python deploy/compose.py down $(ARGS)

compose-test: setup ## Start them for a test, kill and restart parts under load, compare the tables
	$(BIN)/python -m pytest -m compose --tb=short -s tests/compose $(ARGS)

lock: setup ## Resolve the dependencies anew into requirements.lock
	$(BIN)/uv pip compile pyproject.toml --group dev --extra kafka-local --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --quiet -o requirements.lock $(ARGS)

clean: ## Delete .venv and the tools' caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist

# The lock pins each package by its hash. uv is in it: what `pip` brings in first is the same version.
$(STAMP): requirements.lock pyproject.toml | $(BIN)/python
	@echo "setting up $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -o '^uv==[^ ]*' requirements.lock)"
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

$(BIN)/python:
	@for python in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
		if "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "using $$("$$python" --version) ($$python)"; exec "$$python" -m venv $(VENV); fi; done; \
	echo "error: Python 3.11 or later, with its venv module, was not found." >&2; \
	echo "hint:  install one (Debian, Ubuntu: apt install python3-venv), or name it: make setup PYTHON=/path/to/python3" >&2; \
	exit 1
