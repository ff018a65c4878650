# What the chores of this project are called; `make help` lists them. Needs python3 (3.11 or newer) and a package registry.

PYTHON ?= python3
CONFIG ?= configs/config.json
TEST_ARGS ?=
BENCH_ARGS ?=
PEER ?=
PEER_PID ?=
PEER_PATH ?=
BREAKING_AGAINST ?= HEAD~1
ROUNDS ?= 300
TORTURE_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP_FLAGS := -qq --disable-pip-version-check  # errors only

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all run test torture lint format proto constraints bench clean help

all: $(INSTALLED)  ## Build .venv with the server and everything its development needs (default)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, $(PYTHON) is " \
		+ sys.version.split()[0] + "; name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: $(INSTALLED)  ## Serve with configs/config.json, or CONFIG=FILE
	$(BIN)/cc-metric-store -config $(CONFIG)

test: $(INSTALLED)  ## Run every test; TEST_ARGS='tests/unit -k duration' runs some
	$(BIN)/python -m pytest -n auto $(TEST_ARGS)

torture: $(INSTALLED)  ## Kill a server under load, ROUNDS=300 times; TORTURE_ARGS='--seed 7' repeats a run
	PYTHONPATH=tests $(BIN)/python -m helpers.crash --rounds $(ROUNDS) $(TORTURE_ARGS)

lint: $(INSTALLED)  ## Check style, types and protos, and that the contract of BREAKING_AGAINST=HEAD~1 is kept
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy protos/generate.py
	$(BIN)/mypy tests/typing/client_usage.py
	$(BIN)/buf lint protos
	@if git rev-parse --quiet --verify "$(BREAKING_AGAINST)^{commit}" >/dev/null 2>&1; \
	then set -x; $(BIN)/buf breaking protos --against '.git#ref=$(BREAKING_AGAINST),subdir=protos'; \
	else echo "the contract is compared with nothing: there is no commit $(BREAKING_AGAINST) here"; fi

format: $(INSTALLED)  ## Format the sources, and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(INSTALLED)  ## Generate the protobuf modules beside the .proto files
	$(BIN)/python protos/generate.py

constraints:  ## Pin the newest release of every dependency in constraints.txt
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install $(PIP_FLAGS) --editable '.[dev]'
	{ sed '/^[^#]/,$$d' constraints.txt; build/constraints/bin/python -m pip freeze --exclude-editable; } > build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build/constraints

bench: $(INSTALLED)  ## Measure, in ten minutes; PEER=http://HOST:PORT beside a server that runs; BENCH_ARGS='--only nats'
	PYTHONPATH=tests $(BIN)/python -m benchmarks $(if $(PEER),--peer '$(PEER)') $(if $(PEER_PID),--peer-pid $(PEER_PID)) \
		$(if $(PEER_PATH),--peer-path '$(PEER_PATH)') $(BENCH_ARGS)

clean:  ## Remove everything that can be made again
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis bench.json
	find protos server gateway client tests -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## List the targets
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16
