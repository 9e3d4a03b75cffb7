# Every target does the set-up it needs by itself, on a machine that has just Python 3.11.
SHELL := bash
.DEFAULT_GOAL := help
BIN := .venv/bin
SET_UP := .venv/.set-up
# Where it is set, each process compiles anew all that it imports: 2 of 4 s of `import torch`, 5 s more of an export.
export PYTHONDONTWRITEBYTECODE :=
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock"

.PHONY: kernels brokers help setup newest-venv demo broker test quick newest lint check bench bench-kafka accuracy golden replay soak chaos fuzz docs lock release

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(SET_UP) ## .venv with pinned packages, tickcast and its compiled kernels

$(SET_UP): requirements/dev.txt requirements/uv.txt pyproject.toml scripts/setup.sh
	@scripts/setup.sh

kernels: $(SET_UP)
	@scripts/fresh_kernels.sh

newest-venv: $(SET_UP)
	@scripts/newest.sh set-up

demo: $(SET_UP) kernels ## a synthetic market, a fitted model, the live daemon, a summary (ARGS=--headless without the view)
	@$(BIN)/tickcast demo $(ARGS)

brokers: # what is then still missing, tests name, and skip (or fail, in CI)
	@scripts/brokers.sh || true

broker: $(SET_UP) brokers ## a real Kafka and mosquitto to try by hand, with all topics, until Ctrl-C
	@PYTHONPATH=tests $(BIN)/python scripts/broker.py

test: $(SET_UP) kernels brokers ## all tests (ARGS="tests/unit -k symbols" runs some)
	@$(BIN)/python -m pytest $(or $(ARGS),-n 2 --dist loadscope --no-loadscope-reorder --durations=20)

quick: $(SET_UP) kernels ## a verdict in minutes: all tests but those that need a broker or take seconds
	@$(BIN)/python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder -m "not slow" $(ARGS)

newest: $(SET_UP) kernels ## the quick tests once more on the newest Python that this machine has, coverage measured and gated
	@scripts/newest.sh $(ARGS)

chaos: $(SET_UP) kernels brokers ## the long form of tests/chaos, with more than 100 kills (CHAOS_SEED=N repeats a run)
	@CHAOS_LONG=1 $(BIN)/python -m pytest -s tests/chaos $(ARGS)

fuzz: $(SET_UP) kernels ## 1,000,000 mutated inputs for all that reads what others wrote (FUZZ_SEED=N repeats, ARGS="20000 --bounds")
	@$(BIN)/python tests/fuzz.py $(ARGS)

lint: $(SET_UP)
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy

check: lint ## format, lint, types, layers
	@$(BIN)/python -m pytest -q tests/meta/test_layers.py tests/meta/test_style.py

bench: $(SET_UP) kernels ## every figure of docs/figures.md that takes no hours, with machine and versions
	@$(BIN)/python benchmarks/run.py $(ARGS)

bench-kafka: $(SET_UP) kernels brokers ## the figures with a real broker; writes benchmarks/results/kafka_*.json
	@$(BIN)/python benchmarks/run.py kafka_ingest kafka_job kafka_latency

accuracy: $(SET_UP) kernels ## fits what is missing of the accuracy tables: hours (ARGS="--list", ARGS="--only ettm2-96 nhits")
	@$(BIN)/python benchmarks/accuracy.py $(ARGS)
	@$(BIN)/python benchmarks/run.py accuracy

soak: $(SET_UP) kernels ## ten minutes of load; memory must stay flat
	@$(BIN)/python benchmarks/run.py soak

golden: $(SET_UP) kernels ## write the golden files anew, after a change that is meant to change forecasts; review the diff
	@GOLDEN=write $(BIN)/python -m pytest -q tests/golden

replay: $(SET_UP) kernels ## replay history: make replay DATA=ticks.parquet ARGS="--model naive --out out/run"
	@$(BIN)/tickcast replay --data $(or $(DATA),$(error DATA=FILE_OR_DIR is missing)) $(ARGS)

docs: $(SET_UP) ## write docs/reference.md, docs/asyncapi.json, config/default.toml and the tables of docs/models.md and docs/figures.md
	@$(BIN)/python -m tickcast.ui.documents.reference
	@$(BIN)/python -m tickcast.ui.documents.asyncapi
	@$(BIN)/python benchmarks/accuracy_tables.py
	@$(BIN)/python benchmarks/figures.py

lock: ## pin every dependency by version and hash (needs uv); edit pyproject.toml first
	@$(LOCK) pyproject.toml --output-file requirements/base.txt
	@$(LOCK) pyproject.toml --extra all --group dev --output-file requirements/dev.txt
	@echo uv | $(LOCK) - --output-file requirements/uv.txt

release: check test ## checked and tested wheel and source archive in dist/, with their SHA-256
	@rm -rf dist
	@$(BIN)/hatchling build
	@cd dist && sha256sum * > SHA256SUMS && cat SHA256SUMS
