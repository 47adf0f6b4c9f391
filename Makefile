# Every set-up step lives here and in the project's own files. `make help` lists what there is.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE_SOURCES := $(shell find native api -type f -not -path 'native/build/*' 2>/dev/null)

.PHONY: help install demo test lint native slow clean
help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | column -ts $$'\t'

$(BIN)/uv:
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'

$(STAMP): pyproject.toml native/pyproject.toml uv.lock $(NATIVE_SOURCES) | $(BIN)/uv
	@echo "installing into $(VENV) (first time: about a minute)"
	@UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --quiet --frozen --inexact --reinstall-package flexai-native
	@touch $@

install: $(STAMP)  ## everything the project needs, into .venv

demo: $(STAMP)  ## a mixed morning of jobs, with whole cards and then with slices (.demo/demo.png, .demo/demo.json)
	@mkdir -p .demo
	@$(BIN)/flexai demo --json .demo/demo.json --plot .demo/demo.png

test: $(STAMP)  ## the tests, with linters and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --config .importlinter
	@$(BIN)/mypy
	@$(BIN)/pytest -m 'not slow and not gpu' -n 2

lint: $(STAMP)  ## format and lint
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

slow: $(STAMP)  ## the slower checks: tutorial and examples executed, longer fuzzing
	@$(BIN)/pytest -m 'slow and not gpu'

clean:  ## forget everything built
	rm -rf $(VENV) build dist native/build
