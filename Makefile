# SPDX-License-Identifier: Apache-2.0
# `make` alone lists the targets. Everything runs in .venv, which `make setup` makes.
.DEFAULT_GOAL := help
SHELL := bash
BIN := .venv/bin
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"
HARDHAT := cd hardhat && PATH="$(CURDIR)/$(BIN):$$PATH" node node_modules/hardhat/dist/src/cli.js
PYTEST := $(BIN)/python -m pytest

.PHONY: help setup demo test full check lint contracts slither coverage fmt gen bench chaos

help:  ## List the targets
	@echo "FLB: fine-tune one language model together on data that is not shared"
	@sed -nE 's/^([a-z]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | sort | awk -F '|' '{ printf "  make %-10s %s\n", $$1, $$2 }'

setup:  ## Install everything into .venv, hardhat/node_modules and tests/js/node_modules
	@tools/setup

demo: setup  ## Fine-tune a real model on three nodes of this machine, about three minutes
	@$(RUN) flb demo

test: check contracts  ## Set up, then run all tests
	@echo "== all tests but the unit tests, which have passed"
	@tools/side_by_side -m "not unit and not e2e" -- -m e2e || { echo "a test failed: its output is above; run one alone with $(PYTEST) PATH::NAME" >&2; exit 1; }

full: check contracts slither coverage  ## All tests in their long forms, with more random examples
	@FLB_FULL=1 $(PYTEST) -q

check: setup lint  ## Lint, types, imports and unit tests
	@echo "== unit tests"
	@tools/side_by_side -m unit tests/flb -- -m unit --ignore tests/flb || { echo "a unit test failed: its output is above" >&2; exit 1; }

lint: setup
	@echo "== lint, types, imports, generated files"
	@$(BIN)/ruff check --quiet . || { echo "run make fmt, then mend what is left" >&2; exit 1; }
	@$(BIN)/ruff format --quiet --check . || { echo "run make fmt" >&2; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache >/dev/null || $(BIN)/lint-imports --no-cache
	@$(BIN)/python tools/gen_proto.py --check
	@$(BIN)/python -m tools.make_vectors --check
	@$(BIN)/python -m tools.make_legality --check

contracts: setup  ## Compile the contracts, compare the exported ABI, run the Solidity tests
	@echo "== contracts"
	@$(HARDHAT) build --quiet || { echo "the contracts do not compile: see above" >&2; exit 1; }
	@$(BIN)/python tools/export_abi.py --check
	@$(HARDHAT) test solidity || { echo "a Solidity test failed: see above" >&2; exit 1; }

slither: setup  ## Let Slither look for weaknesses in the contracts; half a minute, .venv-slither the first time
	@echo "== slither"
	@$(BIN)/python -m tools.slither

coverage: setup  ## Line coverage of the contracts by the Solidity tests, at least 99 %; two minutes
	@echo "== coverage of the contracts"
	@$(BIN)/python -m tools.solidity_coverage

fmt: setup  ## Format the code
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

gen: setup  ## Generate protobuf code, the exported ABI, the vectors and the tables of legality
	@$(BIN)/python tools/gen_proto.py
	@$(BIN)/python -m tools.make_vectors
	@$(BIN)/python -m tools.make_legality
	@$(HARDHAT) build --quiet && $(CURDIR)/$(BIN)/python $(CURDIR)/tools/export_abi.py

chaos: setup  ## Kill, cut and starve real processes at every place, one a run; about three quarters of an hour
	@FLB_CHAOS=full $(PYTEST) -q tests/e2e/chaos tests/e2e/test_demo_trouble.py

BENCHES := aggregate chain codecs dataset_check gas node noise quantization transfer work_start

bench: setup  ## Run every benchmark but the peers, one after the other; JSON in bench/results
	@mkdir -p bench/results
	@for name in $(BENCHES); do echo "== $$name"; $(BIN)/python -m bench.$$name --json > bench/results/$$name.json || exit 1; \
	  cat bench/results/$$name.json; done
