# The commands of the README. `make help` lists them.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STATE := $(if $(MYXTTS_STATE),$(MYXTTS_STATE),.myxtts)
STAMP := $(VENV)/installed
RESEMBLYZER := $(shell sed -n 's/^[Rr]esemblyzer==/resemblyzer==/p' constraints.txt)
# Images: their prefix and tag; where pip finds a CPU or CUDA build of torch; options of `docker build`.
IMAGE ?= myxtts-python
TAG ?= latest
DOCKER_BUILD ?= docker build
# SET="training.max_steps=200 model_size=small" becomes --set options.
RUN_OPTIONS = $(if $(DATA),--data "$(DATA)") $(foreach item,$(SET),--set $(item))

.DEFAULT_GOAL := help
.PHONY: help install run test test-slow test-docker slow-seconds lint format goldens images clean-runs

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

install: $(STAMP) ## the virtual environment with everything

# The speaker encoder's own requirements (a compiled voice activity detector) are not used: its weights are.
# ttspico is optional: without a C compiler the installation continues.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(RESEMBLYZER)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[pico]' >$(VENV)/pico.log 2>&1 \
	  || echo "ttspico was not built (it needs a C compiler; log: $(VENV)/pico.log): the generated corpus uses flite or espeak-ng"
	@touch $@

run: $(STAMP) ## recordings to a registered voice that speaks; DATA=<folder> SET="key=value ..."
	@$(BIN)/myxtts run $(RUN_OPTIONS)

test: $(STAMP) ## the test suite
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m "not docker and not slow" $(TESTS)

test-slow: $(STAMP) ## the tests that take minutes and those on recorded speech; PART=<commit> one part of the slow ones
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest --timeout 240 $(if $(PART),-m "slow and not docker" --part $(PART) --session-timeout 360,-m "(slow or real_data) and not docker") $(TESTS)

test-docker: $(STAMP) images ## the whole pipeline in containers
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -m docker tests/pipelines/test_containers.py

lint: $(STAMP) ## style, imports and types
	$(BIN)/ruff check .
	$(BIN)/mypy

slow-seconds: $(STAMP) ## measure the slow tests again, which sizes the parts of PART=; TESTS=<name> measures one
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python tests/write_slow_seconds.py $(TESTS)

goldens: $(STAMP) ## rewrite the golden pipeline files after an intended change
	$(BIN)/python tests/pipelines/write_goldens.py

images: ## the images of the steps and of the client; IMAGE=, TAG=, PIP_EXTRA_INDEX_URL= where torch comes from
	@for image in data train client; do \
	  $(DOCKER_BUILD) --target $$image --build-arg PIP_EXTRA_INDEX_URL \
	    --build-arg GIT_COMMIT=$$(git rev-parse HEAD)$$(git diff --quiet HEAD || echo -dirty) \
	    -t $(IMAGE)-$$image:$(TAG) -f infra/docker/Dockerfile . || exit 1; \
	done
	@docker images --filter reference='$(IMAGE)-*:$(TAG)' --format 'table {{.Repository}}\t{{.ID}}\t{{.Size}}'

clean-runs: ## remove output that runs can make again (keeps data, trainings, models, MLflow, studies)
	rm -rf $(STATE)/runs $(STATE)/kfp-cache $(STATE)/features $(STATE)/evaluations $(STATE)/gates $(STATE)/samples
