# What there is to do with rbee. Every target sets up what it needs; python3 with venv is enough.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.rbee-installed

.PHONY: help setup serve simulate test test-gpu check lint bench bench-peers lock audit sbom bee-tiny clean

help: ## say what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## prepare .venv/bin/rbee

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

serve: setup ## serve bee-tiny (or what rbee.toml says) at http://127.0.0.1:7233
	@exec $(BIN)/rbee serve $(ARGS)

# Two tests at a time. One that fails in company is run again alone, and then it must pass.
test: setup ## all tests that this machine allows
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -n 2 --dist loadscope $(ARGS) || { test $$? = 1 \
	  && echo "Some failed; they are run again, alone." \
	  && $(BIN)/python -m coverage run -m pytest --last-failed --last-failed-no-failures none; }
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --skip-covered --skip-empty

SEEDS ?= 10000

simulate: setup ## play SEEDS simulated hours of the supervisor, with faults
	$(BIN)/python -m tests.simulation --seeds 0:$(SEEDS) $(ARGS)

test-gpu: setup ## the tests that need an NVIDIA GPU and the exllamav2 extra
	$(BIN)/python -m pytest -m gpu $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## ruff, mypy --strict, import contracts, tests

bench: setup ## a short run of every benchmark, beside the peers that are installed
	$(MAKE) --no-print-directory -C benchmarks/load BUILD=$(CURDIR)/build
	$(BIN)/python benchmarks/streaming.py --rounds 1 --probes-per-s 50
	$(BIN)/python benchmarks/streaming.py --rounds 1 --tokens-per-s 100 --hang-up
	$(BIN)/python benchmarks/growth.py --rounds 1 --servers rbee
	$(BIN)/python benchmarks/plain_requests.py --rounds 1 --measure-s 2
	$(BIN)/python benchmarks/idle_connections.py --rounds 1
	$(BIN)/python benchmarks/restarts.py --kills 20
	$(BIN)/python benchmarks/engine_overhead.py --bursts 3
	$(BIN)/python benchmarks/churn.py --run-s 60 --warm-s 30

PEERS := build/peers

bench-peers: ## install the peers that need packages of their own, apart from rbee
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt

BEE := .venv-bee-tiny

bee-tiny: ## make the embedded model again: text, tokenizer, training, files, score
	$(PYTHON) -m venv $(BEE)
	$(BEE)/bin/python -m pip install --quiet --disable-pip-version-check -r tools/bee_tiny/requirements.txt
	$(BEE)/bin/python tools/bee_tiny/train.py --out build/bee-tiny
	$(BEE)/bin/python tools/bee_tiny/export_gguf.py --trained build/bee-tiny --out rbee/models/bee_tiny
	$(BEE)/bin/python tools/bee_tiny/compare_tokens.py
	$(BEE)/bin/python tools/bee_tiny/measure.py
	$(BEE)/bin/python tools/bee_tiny/evaluate.py

lock: setup ## pin the dependencies anew
	$(BIN)/uv pip compile pyproject.toml --extra dev --generate-hashes --universal --python-version 3.11 \
	  --no-header --no-annotate --upgrade --quiet -o requirements.lock

AUDITOR := build/audit

audit: setup ## ask which known holes the pinned packages have; fails too where nobody can be asked
	$(PYTHON) -m venv $(AUDITOR)
	$(AUDITOR)/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.10,<3'
	$(BIN)/python -m tools.audit_packages --pip-audit $(AUDITOR)/bin/pip-audit $(ARGS)

sbom: setup ## write build/sbom.json: what rbee is made of, as CycloneDX
	$(BIN)/python tools/sbom.py --out build/sbom.json

clean: ## take away what set-up and tests have made
	rm -rf $(VENV) .venv-bee-tiny .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage*
