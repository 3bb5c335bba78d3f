# make demo: a leaking service, guarded, with the live page.   make test: everything, apt packages included when root.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
# .venv/.stamps/NAME stands for "installed as the files it depends on say": a second run does nothing.

.DEFAULT_GOAL := help
.PHONY: help demo stack test check bench clean packages

help:
	@echo "make demo    install into $(VENV) and start a leaking service, guarded, with the live page"
	@echo "make stack   the same service, with the Prometheus and Alertmanager that are installed here, and alerts/"
	@echo "make test    install what the tests need (apt packages too, when root) and run every test"
	@echo "make check   linters, types and unit tests: under two minutes"
	@echo "make bench   measure survival, reaction, alerting and what the guard costs; writes bench/RESULTS.md"
	@echo "make clean   remove $(VENV) and everything that was built"

demo: $(STAMPS)/sidecar
	$(BIN)/oomguard demo

stack: $(STAMPS)/sidecar
	$(BIN)/python examples/stack/stack.py $(STACK_ARGS)

test: packages $(STAMPS)/examples
	OOMGUARD_TEST_REAL=$$([ "$$(id -u)" = 0 ] && echo 1 || echo 0) $(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(STAMPS)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m "not real" $(wildcard tests/unit tests/property)

bench: $(STAMPS)/examples
	$(BIN)/python -m bench $(BENCH_ARGS)

packages:
	@tests/support/install_packages.sh tests/apt.txt

clean:
	rm -rf $(VENV) build dist bench/out .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The interpreter must be 3.10 or later, and pip must know --group (25.1).
$(STAMPS)/venv:
	@tests/support/make_venv.sh $(PYTHON) $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@mkdir -p $(STAMPS) && touch $@

# Compiled here: an environment that forbids writing .pyc files would cost the sidecar 2 MB and its start a second.
$(STAMPS)/sidecar: $(STAMPS)/venv pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[sidecar]'
	@$(BIN)/python -m compileall -qq $(VENV)/lib exporter || true
	@touch $@

$(STAMPS)/dev: $(STAMPS)/sidecar
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

$(STAMPS)/examples: $(STAMPS)/dev examples/embedding_server/requirements.txt
	$(BIN)/python -m pip install --quiet 'torch==2.13.0'
	$(BIN)/python -m pip install --quiet -r examples/embedding_server/requirements.txt
	@$(BIN)/python -m compileall -qq $(VENV)/lib || true
	@touch $@
