# Everything a person needs; each target sets up what it uses.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DIR    ?= .

.PHONY: help
help:
	@echo 'make demo [DIR=folder]  three agents survey a folder of source code; a worker is killed half-way'
	@echo 'make test               the whole test suite'
	@echo 'make check              what a change must pass: lint, format, types, imports, tests'
	@echo 'make format             put the code into shape'
	@echo 'make docs               write the generated pages of docs/ anew'
	@echo 'make simulate [SEEDS=n] whole deployments from many seeds, in simulated trouble'
	@echo 'make mutants [SECONDS=n] take protections out, one by one, and see that a test notices'
	@echo 'make scenarios [COUNT=n] generated workflows in trouble on real SQLite and PostgreSQL, call by call too'
	@echo 'make interleavings      two deciders on one run, in every order of their calls; the model in Spin'
	@echo 'make chaos [MINUTES=n]  kill and pause real processes, let disks fail and clocks jump; histories of logs'
	@echo 'make bench              what it costs here: a quarter of an hour (holdfast bench: a minute)'
	@echo 'make instructions       a step costs what was recorded, counted by callgrind (RECORD=1: record it anew)'
	@echo 'make pythons            the tests under each newer Python that is here; the long ones are left out'
	@echo 'make peers              the same shapes on DBOS and Restate, in turns with ours (fetches them)'
	@echo 'make clean              remove $(VENV) and caches (runs in .holdfast/ stay)'

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Holdfast needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/pip || { echo 'Setting up $(VENV), once; it takes a minute'; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.PHONY: setup
setup: $(READY)

.PHONY: demo
demo: $(READY)
	@$(BIN)/python -m examples.demo "$(DIR)"

# The tests of pages want a browser. Who cannot install one is told by the tests that are skipped.
.PHONY: browser
browser:
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
	{ echo 'Fetching Chromium for the tests of pages'; apt-get install -qq -y --no-install-recommends chromium >/dev/null \
	|| { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; } || true; }

# Hundreds of processes import the package: it is compiled once, and so are the tests, whatever the environment says.
.PHONY: test
test: $(READY) browser
	@$(BIN)/python -m compileall -qj0 src examples
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist worksteal

.PHONY: lint
lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy src examples
	$(BIN)/lint-imports

.PHONY: check
check: lint test

.PHONY: format
format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: docs
docs: $(READY)
	@set -e; for file in docs/reference/make_*.py; do $(BIN)/python "$$file"; done

SEEDS ?= 1000
.PHONY: simulate
simulate: $(READY)
	@$(BIN)/python proof/simulate.py --seeds $(SEEDS)

.PHONY: mutants
mutants: $(READY)
	@$(BIN)/python proof/mutants.py $(if $(SECONDS),--seconds $(SECONDS))

COUNT ?= 100
.PHONY: scenarios
scenarios: $(READY)
	@HOLDFAST_SCENARIOS=$(COUNT) $(BIN)/python -m pytest -q -n auto tests/laws/test_workers.py
	@$(BIN)/python proof/simulate.py --store sqlite --seeds $(COUNT)
	@$(BIN)/python proof/simulate.py --store postgres --seeds $(COUNT)

.PHONY: interleavings
interleavings: $(READY)
	@$(BIN)/python proof/interleavings.py
	@proof/check-spin.sh

MINUTES ?= 1
WITH ?= clock fsync disk
.PHONY: chaos
chaos: $(READY)
	@$(BIN)/holdfast stress chaos --minutes $(MINUTES)
	@$(if $(WITH),$(BIN)/holdfast stress chaos --minutes $(MINUTES) $(addprefix --with ,$(WITH)))
	@$(BIN)/python proof/history.py

# Less of each than they do by themselves: a quarter of an hour in all. `bench/observe_cost.py` is for callgrind,
# and `bench/instructions.py` has a target of its own.
.PHONY: bench
bench: $(READY)
	@$(BIN)/holdfast bench
	@set -e; for line in 'import_time --repeat 15' guard_cost 'store_cost --appends 1000' \
	'workers --runs 200 --repeat 1 --kills 5 --idle 5 --hooks 20' 'scale --rounds 2' \
	'million --runs 5000 --rounds 3' 'trails --quick'; do \
	    set -- $$line; name=$$1; shift; echo; echo "== bench/$$name.py $$*"; $(BIN)/python "bench/$$name.py" "$$@"; done

# Counting wants valgrind. Who cannot install it is told so, and the target fails.
.PHONY: valgrind
valgrind:
	@command -v valgrind >/dev/null || { echo 'Fetching valgrind'; apt-get install -qq -y --no-install-recommends valgrind \
	>/dev/null || { apt-get update -qq && apt-get install -qq -y --no-install-recommends valgrind >/dev/null; } || true; }

.PHONY: instructions
instructions: $(READY) valgrind
	@$(BIN)/python bench/instructions.py $(if $(RECORD),--record)

.PHONY: pythons
pythons:
	@proof/pythons.sh

.PHONY: peers
peers: $(READY)
	@$(BIN)/python bench/peers.py

.PHONY: clean
clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
