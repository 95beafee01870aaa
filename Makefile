# Two commands for a fresh clone: `make demo` and `make test`. Each needs Python 3.11, make and a package index.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help autogen demo test fix lint types unit wheel schema typescript lies simulate crash crash-postgresql crash-patroni fuzz bench bench-stalled bench-checkpoints bench-savers bench-engines bench-handover bench-keys bench-waiting soak screenshots docs clean

help:
	@echo "make demo               a worker, three bots, and a kill -9 in the middle"
	@echo "make test               ruff, mypy, pytest, and the wheel in a clean environment"
	@echo "make fix                sort imports, fix what ruff can fix, and format"
	@echo "make lint types         ruff; mypy"
	@echo "make unit               pytest: all of TESTS, JOBS at once (0: in one process), with OPTIONS, for instance"
	@echo "                        make unit TESTS=tests/pure/test_rates.py OPTIONS='-k burst -x' JOBS=0"
	@echo "make wheel              build the wheel, install it in a clean environment, and use it"
	@echo "make schema             docs/wire.schema.json anew, from the frames in bus/wire"
	@echo "make typescript         build, test and pack the TypeScript client (needs Node.js 20)"
	@echo "make lies               whether every lie of a broken worker is found, of which make test tells some"
	@echo "make autogen            examples/editors.py with AutoGen, in an environment of its own"
	@echo "make simulate           the simulation of the core, for STEPS steps from SEED"
	@echo "make crash              break workers in every way for SECONDS (an hour) from SEED, JOBS side by side"
	@echo "make crash-postgresql   the same for nodes of PostgreSQL and workers on it"
	@echo "make crash-patroni      break three nodes of PostgreSQL under Patroni and etcd, and the worker, for SECONDS (ten minutes)"
	@echo "make move               move a log of MESSAGES (a million) to PostgreSQL and back, killed on the way"
	@echo "make fuzz               frames that break the core, looked for during SECONDS; OPTIONS=--keep renews the corpus"
	@echo "make bench              posthouse beside other systems and what it is made of; OPTIONS=--quick is short"
	@echo "make bench-stalled      what one stalled subscriber does to the others; OPTIONS=--quick is short"
	@echo "make bench-checkpoints  durable runs beside DBOS, LangGraph and Restate; OPTIONS=--quick is short"
	@echo "make bench-savers       LangGraph's checkpoints beside its own SQLite saver; OPTIONS='--rounds 1' is short"
	@echo "make bench-engines      posthouse on PostgreSQL beside SQLite; OPTIONS='--rounds 1' is short"
	@echo "make bench-handover     how long bots wait when one of two workers on PostgreSQL hands over"
	@echo "make bench-keys         what keys cost the worker, beside a worker without"
	@echo "make bench-waiting      what ten thousand runs cost that only wait; OPTIONS='--runs 1000 --rest 10' is short"
	@echo "make soak               a worker with retention on, for SECONDS (two hours), and whether its memory grows"
	@echo "make screenshots        the pictures in docs/screenshots, anew (needs chromium and chromium-driver)"
	@echo "make docs               the pages as a site, with the API from its docstrings: build/docs/site/index.html"
	@echo "make clean              remove what these made"

$(BIN)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("posthouse needs Python 3.11 or newer: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[test]'
	@touch $@

demo: $(BIN)/.installed
	$(BIN)/posthouse demo

test: lint types unit wheel

fix: $(BIN)/.installed
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lint: $(BIN)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BIN)/.installed
	$(BIN)/mypy

# Most tests wait for a process: three at once share a core well. tests/conftest.py says what stays together.
JOBS ?= 6
TESTS ?= tests
unit: $(BIN)/.installed
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS) $(OPTIONS)

# What users get: the built wheel alone, in an environment of its own, seen from another folder.
wheel: $(BIN)/.installed
	$(BIN)/python -m tests.wheel

schema: $(BIN)/.installed
	$(BIN)/python -m tests.schema

typescript: $(BIN)/.installed
	cd clients/typescript && npm ci --ignore-scripts --no-audit --no-fund && POSTHOUSE_PYTHON=$(abspath $(BIN)/python) npm test && npm pack

lies: $(BIN)/.installed
	POSTHOUSE_LIES=all $(BIN)/python -m pytest -n $(JOBS) tests/crash -k a_lie $(OPTIONS)

# AutoGen takes protobuf 5.29 only, and the tests of A2A run with a newer one.
AUTOGEN := .venv-autogen/bin
$(AUTOGEN)/.installed: pyproject.toml
	test -x $(AUTOGEN)/python || $(PYTHON) -m venv .venv-autogen
	$(AUTOGEN)/python -m pip install --quiet --disable-pip-version-check --editable '.[autogen,postgresql,trio]' \
	  hypothesis pytest pytest-anyio pytest-timeout pytest-xdist
	@touch $@

autogen: $(AUTOGEN)/.installed
	$(AUTOGEN)/python -m pytest tests/integrations/autogen

STEPS ?= 200000
simulate: $(BIN)/.installed
	$(BIN)/python -m tests.pure.simulation --steps $(STEPS) $(if $(SEED),--seed $(SEED))

crash crash-postgresql: SECONDS ?= 3600
crash crash-postgresql: JOBS = 1
crash-postgresql: KIND = failovers engine_counters
crash crash-postgresql: $(BIN)/.installed
	$(BIN)/python -m tests.crash --seconds $(SECONDS) --jobs $(or $(filter-out 0,$(JOBS)),1) \
	  $(if $(SEED),--seed $(SEED)) $(addprefix --kind ,$(KIND))

crash-patroni: SECONDS ?= 600
crash-patroni: $(BIN)/.installed
	$(BIN)/python -m tests.crash.patroni_faults --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(OPTIONS)

MESSAGES ?= 1000000
move: $(BIN)/.installed
	$(BIN)/python -m tests.moving --messages $(MESSAGES) $(if $(SEED),--seed $(SEED))

fuzz: SECONDS ?= 600
fuzz: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(OPTIONS)

# What is compared with has an environment of its own: nothing of it is for users, or for the tests.
BENCH := .venv-bench/bin
$(BENCH)/.installed: pyproject.toml
	test -x $(BENCH)/python || $(PYTHON) -m venv .venv-bench
	$(BENCH)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

bench: $(BENCH)/.installed
	$(BENCH)/python -m bench $(OPTIONS)

bench-stalled: $(BIN)/.installed
	$(BIN)/python -m bench.stalled $(OPTIONS)

bench-handover: $(BIN)/.installed
	$(BIN)/python -m bench.handover $(OPTIONS)

bench-waiting: $(BIN)/.installed
	$(BIN)/python -m bench.waiting $(OPTIONS)

bench-checkpoints: $(BENCH)/.installed
	$(BENCH)/python -m bench.checkpoints $(OPTIONS)

bench-savers: $(BENCH)/.installed
	$(BENCH)/python -m bench.savers $(OPTIONS)

bench-engines: $(BIN)/.installed
	$(BIN)/python -m bench.engines $(OPTIONS)

bench-keys: $(BIN)/.installed
	$(BIN)/python -m bench.keyed $(OPTIONS)

soak: SECONDS ?= 7500
soak: $(BIN)/.installed
	$(BIN)/python -m bench.soak --seconds $(SECONDS) $(OPTIONS)

screenshots: $(BIN)/.installed
	$(BIN)/python -m tests.web.screenshots

# A copy of the pages, in which every link between them is the same, is built into a site; a dead link fails.
DOCS := .venv-docs/bin
PAGES := $(wildcard *.md) LICENSE docs bench/README.md config examples
$(DOCS)/.installed: pyproject.toml
	test -x $(DOCS)/python || $(PYTHON) -m venv .venv-docs
	$(DOCS)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

docs: $(DOCS)/.installed
	rm -rf build/docs && mkdir -p build/docs/source
	tar cf - $(PAGES) | tar xf - -C build/docs/source
	$(DOCS)/mkdocs build --strict --config-file docs/site/mkdocs.yml

clean:
	rm -rf .venv .venv-autogen .venv-bench .venv-docs .venv-early build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
