# `make help` lists what can be done here.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The busy waiting that OpenMP does by default makes two threads on a loaded machine slower than one.
export OMP_WAIT_POLICY ?= PASSIVE

# PyPI's PyTorch for Linux is the CUDA build and brings gigabytes of libraries. Without an NVIDIA GPU ask for the CPU
# build by its exact name, so that nothing else can be chosen: first from the indexes that pip is set up with, then
# from TORCH_INDEX. Elsewhere, or to choose yourself:  make TORCH=torch==2.13.0 demo
# All other versions are those of requirements.lock.
GPU := $(wildcard /proc/driver/nvidia/version)$(shell command -v nvidia-smi 2>/dev/null)
TORCH_VERSION := 2.13.0
TORCH ?= torch==$(TORCH_VERSION)$(if $(filter Linux,$(shell uname -s)),$(if $(GPU),,+cpu))
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

PIP_INSTALL := $(BIN)/pip install --constraint requirements.lock
CLIP ?= frog.mp4
PROMPT ?= a frog jumping up and down on a yellow background

.PHONY: help demo install dev quick test compat lint format docs lock clean
.DEFAULT_GOAL := help

help: ## list these targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

demo: install ## install, then make a clip with the bundled model, offline
	$(BIN)/lumiere generate "$(PROMPT)" -o "$(CLIP)"

install: $(VENV)/.installed ## make .venv with the locked dependencies; .venv/bin/lumiere is then ready

dev: $(VENV)/.installed-dev ## the same, with what training, tests and linters need

# One process a core and one more, as browsers and servers are waited for, one thread each: small tensors gain nothing
# from more threads. Tests of one file share fixtures; tests/conftest.py says which files come first.
PROCESSES ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder

quick: dev ## run the fast tests
	$(PYTEST) -m "not slow and not browser" $(PYTEST_ARGS)

test: dev ## run all tests
	$(PYTEST) $(PYTEST_ARGS)

compat: ## run the fast tests with the lowest and the newest versions allowed, in an environment of their own
	PYTHON="$(PYTHON)" TORCH_VERSION=$(TORCH_VERSION) .ci/compat

lint: dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: dev ## rewrite the code as ruff wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: dev ## build the documentation as a site; anything broken fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "open site/index.html, or write with a preview: $(BIN)/mkdocs serve"

# uv resolves once for all systems and Python versions, which pip cannot. PyTorch and its CUDA are chosen above.
lock: | $(VENV)/.torch ## choose the newest versions allowed anew
	$(BIN)/pip install --quiet uv
	echo torch==$(TORCH_VERSION) | $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
		--no-header --no-annotate --extra dev --extra quantize pyproject.toml - --output-file $(VENV)/lock.txt
	{ echo '# All versions that `make` installs, PyTorch aside: see the Makefile. Made by `make lock`; not to be edited.'; \
		grep -vE '^(torch|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==' $(VENV)/lock.txt; } > requirements.lock

clean: ## delete the environment and what tools left; data, runs and models stay
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.torch:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("openlumiere needs Python 3.11 or newer; name one: make PYTHON=python3.12 demo")'
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) "$(TORCH)" 2>/dev/null || $(PIP_INSTALL) --extra-index-url "$(TORCH_INDEX)" "$(TORCH)"
	@touch $@

$(VENV)/.installed: pyproject.toml requirements.lock | $(VENV)/.torch
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml requirements.lock | $(VENV)/.torch
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.installed
