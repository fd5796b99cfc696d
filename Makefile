# The commands of the README. `make help` lists them.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STATE := $(if $(MYXTTS_STATE),$(MYXTTS_STATE),.myxtts)
STAMP := $(VENV)/installed
PIP := $(BIN)/pip --quiet --disable-pip-version-check
LISTS := $(VENV)/requirements
# Images: their prefix and tag; where pip finds a CPU or CUDA build of torch; options of `docker build`.
IMAGE ?= myxtts-python
TAG ?= latest
DOCKER_BUILD ?= docker build
# Name of the image of `make voice-image`.
VOICE_IMAGE ?= myxtts-voice
# SET="training.max_steps=200 model_size=small" becomes --set options.
RUN_OPTIONS = $(if $(DATA),--data "$(DATA)") $(foreach item,$(SET),--set $(item))

.DEFAULT_GOAL := help
.PHONY: help install constraints run test test-slow test-docker slow-seconds lint format goldens images voice-image clean-runs

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

install: $(STAMP) ## the virtual environment with everything

# Everything is installed at the versions of constraints.txt, and compared with the hashes there. An older pip ignores
# hashes of constraints, so pip comes first; then it is asked which build of torch it finds (infra/requirements.py). The
# wheel with the weights of the speaker encoder stays a file: its code and its requirements (a compiled voice activity
# detector) are not used. Dynamic time warping is compiled, or else the first validation would wait several seconds for
# it. ttspico is optional: without a C compiler the installation continues.
$(STAMP): pyproject.toml constraints.txt infra/requirements.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@mkdir -p $(LISTS)
	@for list in dev pico torch weights; do $(PYTHON) infra/requirements.py $$list >$(LISTS)/$$list.txt || exit 1; done
	@$(PYTHON) infra/requirements.py --locked install >$(LISTS)/install.txt
	$(PIP) install --require-hashes -r $(LISTS)/install.txt
	$(PIP) install --dry-run --ignore-installed --no-deps -r $(LISTS)/torch.txt --report $(LISTS)/torch.json
	@$(PYTHON) infra/requirements.py --build $(LISTS)/torch.json $(LISTS)/dev.txt >$(LISTS)/dev-build.txt
	$(PIP) install --require-hashes -c constraints.txt -r $(LISTS)/dev-build.txt
	$(PIP) download --require-hashes --no-deps -c constraints.txt -r $(LISTS)/weights.txt --dest $(VENV)/share/myxtts
	$(PIP) install --no-deps --no-build-isolation -e .
	@$(PIP) install --require-hashes -c constraints.txt -r $(LISTS)/pico.txt >$(VENV)/pico.log 2>&1 \
	  || echo "ttspico was not built (it needs a C compiler; log: $(VENV)/pico.log): the generated corpus uses flite or espeak-ng"
	$(PIP) check
	@$(BIN)/python -m model.audio.dtw 2>$(VENV)/compile.log || echo "dynamic time warping is compiled later (log: $(VENV)/compile.log)"
	@touch $@

constraints: $(STAMP) ## rewrite constraints.txt after a change of pyproject.toml; UPGRADE=1 takes the newest versions
	$(BIN)/python infra/lock.py $(if $(UPGRADE),--upgrade)

run: $(STAMP) ## recordings to a registered voice that speaks; DATA=<folder> SET="key=value ..."
	@$(BIN)/myxtts run $(RUN_OPTIONS)

test: $(STAMP) ## the test suite
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not (docker or slow or real_data)" $(TESTS)

test-slow: $(STAMP) ## the tests that take minutes and those on recorded speech; PART=<commit> the whole run and one part of the slow ones
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest $(if $(PART),--timeout 240 -m "slow and not docker" --part $(PART) --session-timeout 600,--timeout 600 -n 2 --dist loadfile --no-loadscope-reorder -m "(slow or real_data) and not docker") $(TESTS)

test-docker: $(STAMP) images ## the training pipeline, an interrupted study and a served voice in containers
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -m docker tests/pipelines/test_containers.py tests/pipelines/test_whole_study.py tests/pipelines/test_serving_image.py

lint: $(STAMP) ## style, imports and types
	$(BIN)/ruff check .
	$(BIN)/mypy

slow-seconds: $(STAMP) ## measure the slow tests again, which sizes the parts of PART=; TESTS=<name> measures one
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python tests/write_slow_seconds.py $(TESTS)

goldens: $(STAMP) ## rewrite the golden pipeline files after an intended change
	$(BIN)/python tests/pipelines/write_goldens.py

images: ## the images of the steps, of the server of a voice and of the client; IMAGE=, TAG=, PIP_EXTRA_INDEX_URL= where torch comes from
	@for image in data train serve client; do \
	  $(DOCKER_BUILD) --target $$image --build-arg PIP_EXTRA_INDEX_URL \
	    --build-arg GIT_COMMIT=$$(git rev-parse HEAD)$$(git diff --quiet HEAD || echo -dirty) \
	    -t $(IMAGE)-$$image:$(TAG) -f infra/docker/Dockerfile . || exit 1; \
	done
	@docker images --filter reference='$(IMAGE)-*:$(TAG)' --format 'table {{.Repository}}\t{{.ID}}\t{{.Size}}'

voice-image: $(STAMP) ## an image that serves a registered voice; MODEL=models:/<name>@champion VOICE_IMAGE=<name>
	@test -n "$(MODEL)" || { echo "which voice? MODEL=models:/<name>@champion (\`$(BIN)/myxtts registry list\`)"; exit 2; }
	@docker info >/dev/null 2>&1 || { echo "no Docker engine answers: start it"; exit 2; }
	@docker image inspect $(IMAGE)-serve:$(TAG) >/dev/null 2>&1 || { echo "no image $(IMAGE)-serve:$(TAG): run \`make images\`"; exit 2; }
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT \
	  && MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR=false MLFLOW_TRACKING_URI="$${MLFLOW_TRACKING_URI:-sqlite:///$(abspath $(STATE))/mlflow.db}" \
	    $(BIN)/mlflow artifacts download --artifact-uri "$(MODEL)" --dst-path "$$folder/voice" >/dev/null \
	  && chmod -R a+rX "$$folder" \
	  && printf 'FROM $(IMAGE)-serve:$(TAG)\nLABEL org.opencontainers.image.title="%s"\nCOPY voice /voice\n' "$(MODEL)" \
	    | docker build --quiet --tag $(VOICE_IMAGE) --file - "$$folder"
	@echo "docker run --rm -p 5001:8080 $(VOICE_IMAGE)"

clean-runs: ## remove output that runs can make again (keeps data, trainings, models, MLflow, studies)
	rm -rf $(STATE)/runs $(STATE)/kfp-cache $(STATE)/features $(STATE)/evaluations $(STATE)/gates $(STATE)/samples
