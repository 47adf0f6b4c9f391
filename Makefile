# Every set-up step lives here and in the project's own files. `make help` lists what there is.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE_SOURCES := $(shell find native api -type f -not -path 'native/build/*' 2>/dev/null)

.PHONY: help install demo test slow lint docs pictures bench fuzz clean \
	card-wheels card-install card-slicing card-rest card-pool
help:  ## this list
	@sed -nE 's/^([a-z-]+):.*## *(.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name about; do \
		printf '%-20s %s\n' "$$name" "$$about"; done

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

slow: $(STAMP)  ## the slower checks: tutorial, how-tos and examples executed, crashes, wheels
	@$(BIN)/pytest -m 'slow and not gpu'

lint: $(STAMP)  ## format and lint
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(STAMP)  ## make the generated pages of docs/reference again, and check every page
	@$(BIN)/python -m flexai.apps.cli.reference docs/reference
	@$(BIN)/python -m flexai.apps.pool.reference docs/reference
	@$(BIN)/pytest -q tests/docs tests/contract -m 'not gpu'

pictures: demo  ## take the README's pictures anew, from a real run on simulated cards
	@cp .demo/demo.png docs/images/demo.png
	@$(BIN)/python docs/images/make.py

bench: $(STAMP)  ## a short look at every benchmark on this machine's cards; `flexai bench NAME` is the long form
	@for name in pool slicing scheduling; do $(BIN)/flexai bench $$name --quick; done

# One round is what `make test` does with other random choices; a failure names its seed.
FOR ?= 600
FUZZED := tests/property/test_manifest_laws.py tests/property/test_wire_api_laws.py tests/unit/test_trace.py \
	tests/unit/test_wire_arbiter.py tests/unit/test_wire_timeline.py tests/native/shim/test_layout.py \
	tests/integration/pool/test_pool_fuzz.py tests/native/test_simcard_daemon.py \
	tests/native/arbiter/test_arbiter_process.py
fuzz: $(STAMP)  ## every decoder (socket, YAML, shared memory, arbiter, simulated card) with new seeds for FOR=600 seconds
	@end=$$(( $$(date +%s) + $(FOR) )); n_rounds=0; \
	while [ $$(date +%s) -lt $$end ]; do \
		seed=$$RANDOM; echo "seed $$seed (again: FLEXAI_FUZZ_SEED=$$seed pytest --hypothesis-seed=$$seed ...)"; \
		FLEXAI_FUZZ_SEED=$$seed $(BIN)/pytest -q -x --hypothesis-seed=$$seed -m 'not slow and not gpu' \
			-k 'any or bytes or nonsense or message or scribbled or malformed or fuzz' $(FUZZED) || exit 1; \
		n_rounds=$$(( n_rounds + 1 )); \
	done; echo "$$n_rounds rounds, nothing found"

# Measuring on a machine with a card, which may have no package registry: docs/how-to/measure-on-a-card.md
WHEELS ?= wheels
OUT ?= card-results
PART ?= 1/3
CARD_PYTHON ?= 3.12
export FLEXAI_BENCH_COMMIT ?= $(if $(wildcard .card/bin/flexai),$(shell cat $(WHEELS)/commit 2>/dev/null))
CARD_BIN = $(if $(wildcard .card/bin/flexai),.card/bin,$(BIN))

card-wheels: $(STAMP)  ## into WHEELS: all that card-install needs on a machine with Python CARD_PYTHON and no registry
	@mkdir -p $(WHEELS)
	@$(BIN)/uv export --quiet --frozen --no-hashes --no-dev --no-emit-workspace > $(WHEELS)/locked.txt
	@$(BIN)/uv export --quiet --frozen --no-hashes --only-group dev --no-emit-workspace | \
	  grep -E '^(hypothesis|iniconfig|packaging|pluggy|pygments|pytest|pytest-timeout|sortedcontainers)==' >> $(WHEELS)/locked.txt
	@$(BIN)/uv pip compile --quiet --no-deps --no-header --no-annotate --python-version $(CARD_PYTHON) \
	  --python-platform x86_64-manylinux_2_28 $(WHEELS)/locked.txt -o $(WHEELS)/requirements.txt
	@$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest $(WHEELS) \
	  --python-version $(CARD_PYTHON) --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
	  --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -r $(WHEELS)/requirements.txt
	@git describe --always --dirty --abbrev=12 > $(WHEELS)/commit
	@$(BIN)/uv build --quiet --wheel --all-packages --out-dir $(WHEELS)
	@du -sh $(WHEELS)

# A virtual environment made from another one sees the packages of the Python below both, not the other's.
card-install:  ## from WHEELS into .card, which sees the packages of PYTHON (PyTorch)
	@$(PYTHON) -m venv --system-site-packages .card
	@.card/bin/pip install --quiet --disable-pip-version-check --no-index --find-links $(WHEELS) \
	  -r $(WHEELS)/requirements.txt flexai flexai-native
	@$(PYTHON) -c 'import site, sys; [print(f"import site; site.addsitedir({path!r})") \
	  for path in site.getsitepackages() if sys.prefix != sys.base_prefix]' \
	  > "$$(.card/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/packages-of-python.pth"

card-slicing:  ## one PART of the slicing benchmark, as PART=2/3, into OUT (under 9 minutes each)
	@mkdir -p $(OUT)
	@timeout 580 $(CARD_BIN)/flexai bench slicing --part $(PART) --within 520 --keep $(OUT)

card-rest:  ## contract suite, tests of the real card and the demo on it, into OUT (under 8 minutes)
	@mkdir -p $(OUT)
	@failed=0; \
	FLEXAI_CONTRACT_OUT=$(abspath $(OUT))/contract-nvidia.json timeout 120 $(CARD_BIN)/python -m pytest -q -m gpu \
	  tests/contract tests/gpu 2>&1 | tee $(OUT)/tests.txt; [ $${PIPESTATUS[0]} = 0 ] || failed=1; \
	timeout 300 $(CARD_BIN)/flexai demo --json $(OUT)/demo.json --plot $(OUT)/demo.png 2>&1 | tee $(OUT)/demo.txt; \
	[ $${PIPESTATUS[0]} = 0 ] || failed=1; exit $$failed

card-pool:  ## the pool benchmark's rows about tenants, on the real card, into OUT (under 5 minutes)
	@mkdir -p $(OUT)
	@FLEXAI_BENCH_CARDS=real timeout 400 $(CARD_BIN)/flexai bench pool --case '[slmr]*' --keep $(OUT)

clean:  ## forget everything built
	rm -rf $(VENV) .card build dist native/build
