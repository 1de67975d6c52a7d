.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test fuzz docs-check format clean

help:  ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

$(VENV)/run: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/develop: $(VENV)/run requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

demo: $(VENV)/run  ## The whole job in minutes on generated data: no network but for the install
	$(BIN)/python run.py demo

test: $(VENV)/develop  ## Lint and all tests, as CI runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

fuzz: $(VENV)/develop  ## Read thousands of damaged files with every reader
	HYPOTHESIS_PROFILE=long OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto tests/hostile

docs-check: $(VENV)/develop  ## Run the commands of all pages, on tiny data
	$(BIN)/python -W ignore::UserWarning -m tests.docs.check

format: $(VENV)/develop  ## Bring all code into form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the environment and caches; data and results stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
