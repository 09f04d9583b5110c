# Every target makes its own environment in .venv and needs nothing else but Python >= 3.11.
PYTHON ?= python3
DATA ?= digits
DATA_ROOT ?=
RECIPE := quickstart$(if $(filter-out digits,$(DATA)),_$(DATA))
BIN := .venv/bin

PYTEST := $(BIN)/python -m pytest
# The kernels of a CPU with AVX2 and no more, and memory that is filled with other bytes before and after its use, and
# checked; glibc, from 2.34 on, checks it with that library alone.
OTHER_CPU := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 \
	LD_PRELOAD=libc_malloc_debug.so.0 MALLOC_CHECK_=3 MALLOC_PERTURB_=165

.PHONY: help quickstart test test-fast test-other-cpu test-slow test-faults lint format docs bench clean
help:
	@echo "make quickstart [DATA=cifar10 [DATA_ROOT=folder or tar]]   pre-train with adaptation, evaluate, export, reload"
	@echo "make test | test-slow | test-faults | lint | format | docs | bench | clean"

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

quickstart: .venv/installed
	rm -rf runs/make_$(RECIPE)
	$(BIN)/ssl-adapt pretrain recipe=$(RECIPE) run.dir=runs/make_$(RECIPE) $(if $(DATA_ROOT),data.root="$(DATA_ROOT)")
	$(BIN)/ssl-adapt knn model=runs/make_$(RECIPE)

# All at once, line by line, so that no core waits for another's end.
test: .venv/installed-dev
	$(MAKE) --no-print-directory --jobs=3 --output-sync=line lint test-other-cpu test-fast

test-fast: .venv/installed-dev
	$(PYTEST) --numprocesses=logical --maxprocesses=8 --dist=loadfile

test-other-cpu: .venv/installed-dev
	$(OTHER_CPU) $(PYTEST) -m "exactness and not slow and not faults" $$(grep -rlw exactness tests --include='test_*.py')

test-slow: .venv/installed-dev
	$(PYTEST) -m slow

test-faults: .venv/installed-dev
	$(PYTEST) -m faults

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: .venv/installed-dev
	$(BIN)/ssl-adapt bench

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
