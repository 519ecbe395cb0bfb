# One door for people and CI. `make` alone prints what there is. Needs git, make and Python 3.12 or newer; everything
# else is installed below .tools and .venv, without root.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:
.DELETE_ON_ERROR:

BIN := .venv/bin
STAMP := .venv/.setup-done
MEMBERS := $(wildcard libs/*/pyproject.toml services/*/pyproject.toml)
BACKEND ?= embedded
PYTEST := $(BIN)/pytest

##@ Use it

.PHONY: run
run: $(STAMP) ## Start the platform with real readings and a simulated fleet; data stays in .tidewire
	@$(BIN)/tidewire demo --data-dir .tidewire

.PHONY: demo
demo: $(STAMP) ## The same for 30 seconds in a temporary directory on free ports, then a summary
	@$(BIN)/tidewire demo --seconds 30 --temporary

##@ Set up

.PHONY: setup
setup: $(STAMP) ## Install the locked environment into .venv (and uv into .tools when it is missing)

$(STAMP): uv.lock pyproject.toml .python-version $(MEMBERS)
	@echo "Setting up .venv from uv.lock; the first time this fetches some 200 MB"
	@scripts/uv sync --frozen --quiet
	@touch $@

.PHONY: lock
lock: ## Bring uv.lock in line with the pyproject.toml files, changing no more than needed
	scripts/uv lock
	@$(MAKE) --no-print-directory setup

.PHONY: clean
clean: ## Remove caches and build output; .venv, .tools and .tidewire stay
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find libs services scripts tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

##@ Check it

.PHONY: test
test: verify test-platform ## Everything a newcomer's machine can run: verify, then the whole platform

.PHONY: verify
verify: lint types imports protos-check docs-check charts-check test-unit ## What every commit has to pass

.PHONY: lint
lint: $(STAMP) ## Ruff's rules and format, buf's rules for the protos, the lock
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check --quiet || { echo "not formatted as above; run: make fmt"; exit 1; }
	@$(BIN)/buf lint
	@scripts/uv lock --check --quiet || { echo "uv.lock does not match a pyproject.toml; run: make lock"; exit 1; }

.PHONY: types
types: $(STAMP) ## mypy, strict, over all sources
	@$(BIN)/mypy

.PHONY: imports
imports: $(STAMP) ## The contracts between packages and layers
	@$(BIN)/lint-imports --no-logo

.PHONY: test-unit
test-unit: $(STAMP) ## Unit and contract tests on the embedded backend (PYTEST_ARGS="-k name" to choose)
	@$(PYTEST) --numprocesses auto $(PYTEST_ARGS)

.PHONY: test-platform
test-platform: $(STAMP) ## The whole platform over processes, the ledger test under SIGKILL, and packages' longer tests
	@$(PYTEST) tests/platform tests/ledger $(PYTEST_ARGS)
	@$(PYTEST) -m "thorough and not servers" libs services $(PYTEST_ARGS) || [ $$? -eq 5 ] # 5: PYTEST_ARGS chose none

.PHONY: test-servers
test-servers: $(STAMP) ## Tests on a real Kafka and Cassandra, started for them; needs Java 17, and Maven the first time
	@$(BIN)/python -m tidewire_testkit.servers run -- \
	  $(PYTEST) --numprocesses 2 --dist loadfile --no-loadscope-reorder -m servers libs services tests $(PYTEST_ARGS)

.PHONY: test-faults
test-faults: $(STAMP) ## Tests that kill, suspend and misconfigure brokers and nodes of their own; needs the same
	@$(BIN)/python -m tidewire_testkit.servers install >/dev/null
	@$(PYTEST) -m faults libs services tests $(PYTEST_ARGS)

.PHONY: test-kube
test-kube: $(STAMP) ## Tests of the chart by Helm, kubeconform and kube-score; needs Go, which builds them the first time
	@$(BIN)/python tests/charts/tools/install.py
	@$(PYTEST) --numprocesses auto tests/charts $(PYTEST_ARGS)

.PHONY: test-kube-api
test-kube-api: $(STAMP) ## Tests on a real Kubernetes API server, without nodes; the first time tests/cluster/build makes it
	@tests/cluster/build >/dev/null
	@$(PYTEST) -m kube tests/kube $(PYTEST_ARGS)

.PHONY: bench
bench: $(STAMP) ## Measure the figures on this machine (BACKEND=distributed: on Kafka and Cassandra): a table, and build/bench.json
	@mkdir -p build
	@$(BIN)/python -m benchmarks.run --backend $(BACKEND) --output build/bench.json $(BENCH_ARGS)

.PHONY: bench-smoke
bench-smoke: $(STAMP) ## The same with little data: proves that the benchmarks work, measures nothing
	@mkdir -p build
	@$(BIN)/python -m benchmarks.run --quick --output build/bench-smoke.json $(BENCH_ARGS)

##@ Run it on Kubernetes

.PHONY: images
images: $(STAMP) ## Build the container images with docker, podman, nerdctl or buildah (IMAGES="ingestion storage" to choose)
	@$(BIN)/python scripts/images.py build $(IMAGES)

.PHONY: kind-load
kind-load: $(STAMP) ## Load the images into the current context's cluster: kind, k3d, minikube or ours
	@$(BIN)/python scripts/images.py load $(IMAGES)

.PHONY: cluster-up
cluster-up: ## Start a Kubernetes on this machine without any container engine; as root on Debian, see tests/cluster
	@tests/cluster/build
	@echo "export KUBECONFIG=$$(tests/cluster/up)"

.PHONY: cluster-down
cluster-down: ## Remove it with all it held
	@tests/cluster/down

.PHONY: e2e
e2e: $(STAMP) ## The platform on Kubernetes: images, chart, load, upgrades; on our cluster, or E2E_KUBECONFIG and E2E_CONTEXT
	@$(PYTEST) -m e2e tests/e2e $(PYTEST_ARGS)

##@ Change it

.PHONY: fmt
fmt: $(STAMP) ## Format the code and apply the safe fixes
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format
	@$(BIN)/buf format --write protos

.PHONY: protos
protos: $(STAMP) ## Generate libs/tidewire-protos from protos/
	@$(BIN)/python scripts/protos.py

.PHONY: protos-check
protos-check: $(STAMP) ## Fail when generated code and protos/ differ
	@$(BIN)/python scripts/protos.py --check

.PHONY: docs
docs: $(STAMP) charts ## Generate the reference pages in docs/reference
	@$(BIN)/python scripts/docs.py

.PHONY: docs-check
docs-check: $(STAMP) ## Fail when the generated reference pages are stale
	@$(BIN)/python scripts/docs.py --check

.PHONY: charts
charts: $(STAMP) ## Generate schema and reference of the charts' values from values.yaml
	@$(BIN)/python scripts/charts.py

.PHONY: charts-check
charts-check: $(STAMP) ## Fail when these are stale
	@$(BIN)/python scripts/charts.py --check

.PHONY: help
help: ## Show this text
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' Makefile
