.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# pip compiles on one core; compileall uses all, and fails for the templates in some packages, which are not Python.
define install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r $(1)
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
endef

.PHONY: help setup demo test fuzz docs-check format clean

help:  ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

$(VENV)/run: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(call install,requirements.txt)
	@touch $@

$(VENV)/develop: $(VENV)/run requirements-dev.txt
	$(call install,requirements-dev.txt)
	@touch $@

setup: $(VENV)/run  ## Create .venv with what run.py and make_arrow.py need

demo: $(VENV)/run  ## Run the whole pipeline in minutes on generated data
	$(BIN)/python run.py demo

test: $(VENV)/develop  ## Run the linter and all tests, as CI does
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

fuzz: $(VENV)/develop  ## Feed every reader with thousands of damaged files
	HYPOTHESIS_PROFILE=long OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto tests/hostile

docs-check: $(VENV)/develop  ## Run the commands of all documentation pages on tiny data
	$(BIN)/python -W ignore::UserWarning -m tests.docs.check

format: $(VENV)/develop  ## Format all code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the environment and caches, but no data or results
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
