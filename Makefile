# VideoMoments. Needs Python 3.11 or newer and make; everything else is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help run import test lint types fmt settings migrate bench bench-search quality lock audit ci clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

run: .venv/.server  ## set everything up and serve the API on http://127.0.0.1:7005
	@exec $(BIN)/python -m app run

import: .venv/.server  ## bring in a library of the previous backend: make import DIR=path/to/static
	@exec $(BIN)/python -m app import "$(DIR)" $(OPTIONS)

test: .venv/.tests  ## run the tests, on servers of their own
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest --numprocesses 6 --dist loadfile --no-loadscope-reorder --durations 20 $(OPTIONS)

lint: .venv/.tools  ## check the style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.tools  ## check the types
	$(BIN)/mypy

fmt: .venv/.tools  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

settings: .venv/.tests  ## write .env.example and the README's table of settings from app/core/config.py
	@$(BIN)/python -m tests.core.settings_documents

migrate: .venv/.server  ## create the database and bring it to the newest revision
	@$(BIN)/python -m app db upgrade

bench: .venv/.tests .venv-bench/.ready  ## measure this server beside two peers
	@$(BIN)/python -m tests.performance.bench $(OPTIONS)

bench-search: .venv/.tests .venv-bench/.ready  ## measure searches in a large library: OPTIONS='--transcripts 10000'
	@$(BIN)/python -m tests.performance.large_search $(OPTIONS)

quality: .venv/.tests  ## measure how good searches are: make quality TALKS=folder/of/talks
	@$(BIN)/python -m tests.quality.search "$(TALKS)" $(OPTIONS)

lock: .venv-supply/.ready  ## write .ci/locks anew after a change of a requirements file
	@.venv-supply/bin/python .ci/lock.py .venv-supply/bin/uv $(OPTIONS)

audit: .venv-supply/.ready  ## say which vulnerabilities are known of what is installed
	@.venv-supply/bin/python .ci/audit.py .venv-supply/bin/pip-audit

ci: lint types test  ## what has to pass before a change lands

clean:  ## remove what the other targets installed; the data in .data stays
	rm -rf .venv .venv-bench .venv-supply

.venv/.server: .ci/locks/server.txt .ci/locks/local.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "VideoMoments needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Setting up .venv, which takes a few minutes the first time"
	@$(BIN)/python app/embedded/install.py $^
	@install -m 755 app/cli/videomoments.sh $(BIN)/videomoments
	@touch $@

.venv/.tests: .ci/locks/tests.txt .venv/.server
	@$(BIN)/python app/embedded/install.py $<
	@touch $@

.venv/.tools: .ci/locks/tools.txt .venv/.tests
	@$(BIN)/python app/embedded/install.py $<
	@touch $@

.venv-bench/.ready: .ci/locks/server.txt .ci/locks/bench.txt
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python app/embedded/install.py $^
	@touch $@

.venv-supply/.ready: .ci/locks/supply.txt
	@test -x .venv-supply/bin/python || $(PYTHON) -m venv .venv-supply
	@.venv-supply/bin/python app/embedded/install.py $<
	@touch $@
