# make demo    a first clip on a fresh machine        make test    the tests (default suite, no network)
# make check   style, types, order of imports         make bench   timings against others' ways
#
# Everything happens in .venv, made on first use and again when pyproject.toml changes. To install another PyTorch:
#   make demo TORCH="torch==2.13.0 --index-url ..."

PYTHON ?= python3
TORCH  ?= torch==2.13.0
VENV   ?= .venv
BIN    := $(VENV)/bin

RUN_READY := $(VENV)/.ready-to-run
DEV_READY := $(VENV)/.ready-to-develop

# Two processes of one thread each: on two cores that is faster than one process of two threads. A file's tests stay together.
TEST_FLAGS ?= -n 2 --dist loadfile

# What `stillmotion` tells glibc for itself (src/stillmotion/allocator.py); other systems take no notice.
KEEP_MEMORY := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647

# On some processors MKL's sums depend on where in memory a matrix lies; tests that two ways give the same bits must not.
SAME_BITS := MKL_CBWR=AUTO,STRICT

# The oldest release of everything that pyproject.toml admits, in an environment of its own (3 GB: that PyTorch brings CUDA).
LOWEST := .venv-lowest

.PHONY: help demo test test-slow test-lowest check format bench clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

# PyTorch goes in first and by itself: a later range that it satisfies then leaves it alone.
$(RUN_READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Stillmotion needs Python 3.11 or newer; say make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(DEV_READY): $(RUN_READY)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(RUN_READY)
	$(BIN)/stillmotion animate "a red ball rolling right on green grass"

test: $(DEV_READY)
	OMP_NUM_THREADS=1 $(KEEP_MEMORY) $(SAME_BITS) $(BIN)/python -m pytest $(TEST_FLAGS)

test-slow: $(DEV_READY)
	$(KEEP_MEMORY) $(SAME_BITS) $(BIN)/python -m pytest -m slow

test-lowest:
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct --editable '.[dev]'
	OMP_NUM_THREADS=1 $(KEEP_MEMORY) $(SAME_BITS) $(LOWEST)/bin/python -m pytest $(TEST_FLAGS)

check: $(DEV_READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(DEV_READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(RUN_READY)
	$(BIN)/stillmotion bench plug
	$(BIN)/stillmotion bench step --size sd15
	$(BIN)/stillmotion bench step --size sd15 --dtype bfloat16
	$(BIN)/stillmotion bench train --size half

clean:
	rm -rf $(VENV) $(LOWEST) build dist .mypy_cache .pytest_cache .ruff_cache
