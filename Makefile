# The words that people, CI and hooks share. `make repro` and `make test` do all of their own set-up.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Nothing calls home, and nothing but packages is fetched.
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
export ITERATIVE_DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1

# The machine's own certificates, as behind a company's proxy.
export UV_SYSTEM_CERTS := true

export PATH := $(CURDIR)/.venv/bin:$(PATH)

PRIVATE_UV := .cache/uv/bin/uv
UV := $(or $(shell command -v uv 2>/dev/null),$(PRIVATE_UV))
SYNCED := .venv/.synced

.PHONY: help
help: ## List every verb
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 18

$(PRIVATE_UV):
	python3.11 -m venv .cache/uv
	.cache/uv/bin/pip install --quiet --disable-pip-version-check uv

$(SYNCED): pyproject.toml uv.lock $(filter $(PRIVATE_UV),$(UV))
	$(UV) sync --frozen --quiet --python 3.11 --no-python-downloads
	@touch $@

.PHONY: setup
setup: $(SYNCED) ## Install the locked packages into .venv (every other verb does it too)

.PHONY: repro
repro: setup ## Run the pipeline: raw rows → promoted model
	churn repro
	@churn models

.PHONY: test
test: setup ## Run the tests
	pytest --numprocesses 2 --dist loadfile

.PHONY: lint
lint: setup ## Check style, types, and who imports whom
	ruff check .
	ruff format --check .
	mypy
	lint-imports

.PHONY: render
render: setup ## Write the generated parts of the documentation anew
	python docs/render.py

.PHONY: serve
serve: setup ## Serve the production model: API and page on http://127.0.0.1:8000
	python -m serving

.PHONY: monitor
monitor: setup ## Watch the prediction log: drift, performance, retraining; reports on http://127.0.0.1:8001
	python -m monitoring

SCENARIO := price-rise

.PHONY: demo
demo: setup ## Play the whole loop: SCENARIO=price-rise, concept, surge, bad-data or none
	python -m demo --scenario $(SCENARIO) --folder data/demo/$(SCENARIO)

.PHONY: bench-pipeline
bench-pipeline: setup ## Measure every stage and `churn score` against the notebook way
	python benchmarks/bench_pipeline.py

.PHONY: bench-serve
bench-serve: $(filter $(PRIVATE_UV),$(UV)) ## Measure the server against bare ASGI, a pickle in FastAPI, mlflow and BentoML
	UV_PROJECT_ENVIRONMENT=.cache/bench $(UV) sync --frozen --quiet --python 3.11 --no-python-downloads --group bench
	UV=$(UV) .cache/bench/bin/python benchmarks/bench_serve.py

.PHONY: bench-monitor
bench-monitor: setup ## Measure a check of the watcher against Evidently on the whole window
	python benchmarks/bench_monitor.py
