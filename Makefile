# `make train` and `make test` do everything from a fresh clone; they assume python3.11 or newer, make and git.
# The first interpreter that runs (a version manager's shim may be there without its Python) and is new enough.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
# Each set of extras has a stamp, so that `make train` does not install what only tests need.
RUN_STAMP := $(VENV)/.run
DEV_STAMP := $(VENV)/.dev
DOCS_STAMP := $(VENV)/.docs
# The versions that CI tests; `make PIP_CONSTRAINTS= test` in a new clone takes the newest ones.
PIP_CONSTRAINTS ?= -c constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_CONSTRAINTS)

.PHONY: train test chaos check lint types format docs wheel clean

train: $(RUN_STAMP)
	$(BIN)/python launch.py train breakout $(ARGS)

# Two processes, whatever the machine: many tests wait for Ray, and each process starts one of its own. One that dies is
# not replaced: the run would hang at its end (pytest-xdist 3.8, issue 1378).
test: $(DEV_STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(ARGS)

# Three and a half hours in full; `make chaos ARGS=--quick` takes half an hour.
chaos: $(RUN_STAMP)
	$(BIN)/python -m chaos $(ARGS)

check: lint types test

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV_STAMP)
	$(BIN)/mypy

format: $(DEV_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site mirrors the repository, so that links between pages are right in both. A dead link fails the build.
docs: $(DOCS_STAMP)
	rm -rf build/docs build/site
	mkdir -p build/docs
	cp -r *.md LICENSE NOTICE CITATION.cff docs examples deploy build/docs
	$(BIN)/zensical build --strict

wheel: $(BIN)/python
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it with: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(RUN_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[openvino]'
	touch $@

$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[boards,box2d,minatar,onnx,openvino,plots,dev]'
	touch $@ $(RUN_STAMP)

$(DOCS_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .cache .mypy_cache .ruff_cache .pytest_cache
