# Two commands do everything, each with its own set-up in .venv:
#   make demo    set up, generate the demo world, learn from its videos, write a report
#   make test    set up, then lint, types and the default test suite
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# A user-set number of threads is respected; training is bit-identical only at a fixed number.
PYTEST_WORKERS ?= 2

# The whole fault suite prints its table; `make test` runs a few of its points.
# `make test-cases` repeats every case of footage, text and surroundings that once failed.
.PHONY: demo test test-long test-slow test-browser test-faults test-cases lint setup clean

demo: setup
	$(BIN)/tracklearn demo --out demo --resume

# Each worker begins with one half of the tests, so that most fixtures are made once, and helps the other out.
test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(PYTEST_WORKERS) --dist worksteal -m "not long and not slow and not gpu"

# Whole runs again and again: killed, on odd machines, in several processes, and the examples. CI runs them too.
test-long: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(PYTEST_WORKERS) --dist worksteal -m "long and not slow and not gpu"

test-slow: setup
	$(BIN)/python -m pytest -q -m "slow or gpu"

# The pages in Chromium, looked at by axe-core; both are fetched where they are missing and may be. Pictures of
# the pages are left in build/pages.
test-browser: setup
	.ci/browser
	TRACKLEARN_SCREENSHOTS=$(CURDIR)/build/pages OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow tests/app/test_web_browser.py

test-faults: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults --jobs $(PYTEST_WORKERS)

test-cases: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(PYTEST_WORKERS) tests/cases

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed (make PYTHON=python3.12 ...)")'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
