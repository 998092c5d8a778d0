# What one does in this house. Every target first sees to .venv, which takes no time when nothing changed.
# Only `test` and `check` need Debian packages (deploy/debian-packages.txt).
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup setup-tests demo lint format docs test soak check bench constraints

BIN := .venv/bin
JOBS ?= $(shell expr $$(nproc) + 2)# tests wait for servers much of their time
COVERAGE ?=
PYTEST_ARGS ?=
export PATH := $(PATH):/usr/sbin# where Debian keeps nginx and rsyslogd
# The stores of the tests lie in memory where there is room: half of the time would go into waiting for a disk.
# In a container /dev/shm often has 64 MB, or runs no program.
IN_MEMORY := $(shell test -w /dev/shm && ! grep -q ' /dev/shm [^ ]* [^ ]*noexec' /proc/mounts && df -Pk /dev/shm | awk \
	'/^MemAvailable/ {memory = $$2} $$6 == "/dev/shm" {room = $$4} \
	END {if (memory > 8000000 && room > 4000000) print "TMPDIR=/dev/shm"}' /proc/meminfo -)

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s%s\n", $$1, $$2 }' Makefile

setup: ## make .venv from constraints.txt
	@deploy/setup.sh

setup-tests: ## the same, and the servers that the tests start (Debian packages)
	@deploy/setup.sh --tests

demo: setup ## train with silos, audit the run, find a forgery, erase a silo: about a minute
	@$(BIN)/fl-gateway demo

lint: setup ## formatting, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: setup ## put the code into the house's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup ## write the tables of docs/ that are made from the code
	@$(BIN)/python docs/tables.py

test: setup-tests ## all tests, documentation included; with COVERAGE=1 it tells what they reach
	$(IN_MEMORY) $(BIN)/pytest -n $(JOBS) --dist worksteal $(if $(COVERAGE),--cov --cov-report=term:skip-covered) $(PYTEST_ARGS)

SOAK_ARGS ?=
soak: setup-tests ## kill and halt every part, 20 to 50 times each: an hour and a half
	@$(BIN)/python tests/soak.py $(SOAK_ARGS)

check: ## exactly what CI runs
	@.ci/run

bench: setup ## the benchmarks in their quick form
	@for name in $(basename $(notdir $(shell grep -l '^if __name__ ==' bench/*.py))); do \
		echo "bench.$$name"; $(BIN)/python -m bench.$$name --quick || exit 1; \
	done

constraints: ## choose the newest versions anew (needs uv)
	uv pip compile --quiet --upgrade --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--all-extras pyproject.toml -o constraints.txt
