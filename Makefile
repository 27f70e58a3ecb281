# `make` lists what there is. The Python that makes .venv: the first here that is 3.11 or later; PYTHON=... names another.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$name"; break; }; done)
BIN := .venv/bin
RUN := quickstart-$(shell date +%Y%m%d-%H%M%S)
# A file of tests stays in one process, so that what its tests share is made once. Each process takes up to 6 GB.
PYTEST := $(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-all check wheel clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## make .venv with everything in it; does nothing when it is up to date
	@test -n "$(PYTHON)" || { echo "PYTHON=: found no Python 3.11 or later; install one, or name it: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" launch/make_venv.py

quickstart: setup  ## set up, then train the bundled model on this machine
	$(BIN)/rl-posttrain train quickstart run.name=$(RUN)

# pytest heeds the last -m alone, so that ARGS="-m ..." takes the place of this one.
test: setup  ## set up, then run the tests but the long ones; ARGS is handed to pytest: make test ARGS=tests/optim
	$(PYTEST) -m "not long" $(ARGS)

test-all: setup  ## set up, then run every test, the long ones too
	$(PYTEST) $(ARGS)

check: setup  ## lint and check the formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

wheel: setup  ## build the wheel into dist/
	$(BIN)/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist .
	rm -rf build

clean:  ## remove .venv and what builds and tools leave behind; runs/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
