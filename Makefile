# `make` alone shows what there is to make.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup demo paper test test-slow check format stages lock clean web

# The first Python that is new enough; `make PYTHON=...` names another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; \
	done)
VENV := .venv
READY := $(VENV)/.ready
UV := .uv/bin/uv
PYTEST := python -m pytest
FOLDER := experiments/paper
JOBS := 1
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

help: ## Show what there is to make.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv from requirements.lock (about 6 GB on Linux).

# uv is about ten times as fast as pip, but knows nothing of pip's configuration (a mirror, a folder
# of wheels): where it fails, pip tries. It lives in a throw-away environment.
$(READY): requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
		echo "Error: no Python 3.11 or newer is on the PATH (python3 is" \
			"$$(python3 --version 2>&1 || true)); install one or run make PYTHON=/path/to/python" >&2; \
		exit 1; \
	fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Error: PYTHON is $(PYTHON), not a Python of version 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "Error: $(PYTHON) cannot make environments; install its venv package" \
			"(Debian: apt install python3-venv)" >&2; exit 1; }
	@$(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		$(PYTHON) -m venv --clear $(VENV)
	[ -x $(UV) ] || { $(PYTHON) -m venv .uv && .uv/bin/pip install --quiet uv; }
	$(UV) pip install --quiet --python $(VENV)/bin/python -r requirements.lock || { \
		echo "uv failed (above); trying pip" >&2; \
		$(VENV)/bin/python -m pip install -r requirements.lock; }
	$(UV) pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation -e .
	rm -rf .uv
	@touch $@

demo: $(READY) ## Build the model `demo` (minutes on two CPU cores).
	dvc repro report@demo
	@echo
	@echo "model    models/demo/products/fp32.onnx"
	@echo "report   reports/demo/index.html"
	@sample=$$(find reports/demo/samples -name '*.png' | sort | head -n 1); \
		echo "try      .venv/bin/python -m pipeline predict --model demo $$sample"

# FOLDER=experiments/paper-small: the experiment for a CPU. JOBS=4: four models at a time.
paper: $(READY) ## Build or go on with the paper's models (a GPU, 101 GB); MODEL=name: one; JOBS=n.
	python -m pipeline.grid $(FOLDER) --jobs $(JOBS) $(MODEL)

test: $(READY) ## Run the tests.
	$(PYTEST) -m "not slow" -n auto

test-slow: $(READY) ## Run the tests that take minutes.
	$(PYTEST) -m slow

check: $(READY) ## Check format, lint, types, spelling.
	ruff format --check .
	ruff check .
	mypy
	codespell

format: $(READY) ## Put the code into shape.
	ruff check --fix .
	ruff format .

web: ## Build the page of `serve` (needs Node.js 18 or newer).
	@command -v npm >/dev/null || { echo "Error: npm is not found; install Node.js" >&2; exit 1; }
	cd web && npm ci --ignore-scripts --no-audit --no-fund && npm run --silent build

stages: ## Give the folders of experiments/ the stages of dvc.yaml.
	for folder in experiments/*/; do cp dvc.yaml "$$folder"; done

lock: ## Choose versions anew for requirements.lock.
	[ -x $(UV) ] || { $(PYTHON) -m venv .uv && .uv/bin/pip install --quiet uv; }
	$(UV) pip compile --quiet --universal --upgrade --python-version 3.11 --extra dev \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		pyproject.toml --output-file requirements.lock
	rm -rf .uv

clean: ## Remove what tools write; models, data and .venv stay.
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache .uv *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
