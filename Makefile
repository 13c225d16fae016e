# Every target sets itself up from a bare python3; the second time that is instant.
#   make demo PYTHON=python3.12     another interpreter for the virtual environment (3.11 or newer)
#   make demo VENV=/tmp/asap-venv   another place for it
#   make imagenet-deit-base IMAGENET=/data/imagenet ARGS="limit=1000 device=cpu"    further options, see
#                                   python -m asap.run --help
# make exits 2 whenever a command fails; the command's own exit code is in the line "Error N".

PYTHON ?= python3
VENV ?= .venv
IMAGENET ?=
KINETICS ?=
LLAVA ?=
DATA ?=
ARGS ?=
BACKBONE ?= deit_base
# What is given is taken to the letter, whatever signs it has: make expands no $ in it, and it reaches
# the shell, and hydra behind it, in their quotes.
override IMAGENET := $(value IMAGENET)
ifneq ($(value LVVIT_S),)
override export LVVIT_S := $(value LVVIT_S)
endif
override KINETICS := $(value KINETICS)
ifneq ($(value HEAD),)
override export HEAD := $(value HEAD)
endif
ifneq ($(value HEAD_224),)
override export HEAD_224 := $(value HEAD_224)
endif
override LLAVA := $(value LLAVA)
override DATA := $(value DATA)
override VENV := $(value VENV)
override ARGS := $(value ARGS)
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

comma := ,
quote := '
in_shell = '$(subst $(quote),'\'',$(1))'
in_hydra = '$(subst $${,\$${,$(subst $(quote),\',$(1)))'

PY := $(call in_shell,$(VENV)/bin/python)
STAMP := $(VENV)/.stamp
ifneq ($(words $(VENV)),1)
$(error VENV=$(VENV) has blanks, which make takes for several files: choose another place)
endif
PYTHON_IS_NEW = $(shell $(PYTHON) -c "import sys; print(sys.version_info >= (3, 11))" 2>/dev/null)

.PHONY: help setup setup-vlm demo demo-video demo-vlm test check test-gpu test-kernels bench-gpu lint check-macs report clean _imagenet-given
.PHONY: imagenet-deit-base imagenet-deit-small imagenet-deit-tiny imagenet-vit-augreg imagenet-lvvit-s
.PHONY: imagenet-all imagenet-anchors imagenet-alpha imagenet-matched-macs overhead
.PHONY: kinetics-clip-vit-large _kinetics-given
.PHONY: llava15 llava-next llava-composition llava-anchors _llava-given
.PHONY: llava-latency llava-next-latency modular-cost
.PHONY: matched-macs throughput sweep-tau-k sweep-alpha
.DEFAULT_GOAL := help

# A sweep is of the embedded default unless BACKBONE or IMAGENET says otherwise.
chosen_backbone = $(if $(IMAGENET)$(KINETICS),$(call in_shell,backbone=$(BACKBONE)),$(if $(filter file,$(origin BACKBONE)),,$(call in_shell,backbone=$(BACKBONE))))
imagenet_path = $(call in_shell,data.path=$(call in_hydra,$(IMAGENET)))
chosen_data = $(if $(KINETICS),$(kinetics_groups) $(kinetics_path) workers=8,$(if $(IMAGENET),data=imagenet $(imagenet_path) batch_size=128 workers=8))
kinetics_path = $(call in_shell,data.path=$(call in_hydra,$(KINETICS)))
on_imagenet = @$(PY) -m asap.run $(1) $(imagenet_path) $(ARGS)

help:  ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  %-22s %s\n' "$$name" "$$what"; done

setup: $(STAMP)  ## make the virtual environment and install everything into it

setup-vlm: $(STAMP)  ## the same, with what vision-language models need (the extra vlm)
	@$(PY) -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[vlm]'

demo: $(STAMP)  ## evaluate every method on the embedded model and data, and print the table
	@$(PY) -m asap.run experiment=demo $(ARGS)

# One thread computes and one process reads clips ahead: two threads on frames this small wait for one another.
demo-video: $(STAMP)  ## the same on embedded video clips, whose class is a motion, and two controls
	@OMP_NUM_THREADS=1 $(PY) -m asap.run -m experiment=demo_video_mean$(comma)demo_video_middle $(ARGS)
	@OMP_NUM_THREADS=1 $(PY) -m asap.run experiment=demo_video $(ARGS)

# One question at a time: a second thread would wait at every small layer.
demo-vlm: $(STAMP)  ## the same on questions about pictures, answered by a tiny embedded LLaVA
	@OMP_NUM_THREADS=1 $(PY) -m asap.run experiment=demo_vlm $(ARGS)

# Compiled files are kept even where the environment says not to: the tests start Python a hundred
# times, and compiling is a third of a start. A file's tests stay together: they share what they made.
pytest = @PYTHONDONTWRITEBYTECODE= $(PY) -m pytest

test: $(STAMP)  ## run all tests (CPU, no network, no weights)
	$(pytest) -n 2 --dist loadfile

check: $(STAMP)  ## run the quick ones: units and contracts, on one thread, no other processes
	$(pytest) -n 2 --dist loadfile -m "not process and not slow and not whole_run"

test-gpu: $(STAMP)  ## run the tests that need a CUDA device, and the contract tests on it
	@ASAP_TEST_DEVICE=cuda PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -m gpu -n auto --maxprocesses 12 --dist worksteal

test-kernels: $(STAMP)  ## run the GPU's code on the CPU (minutes): kernels at up to 2,880 tokens, interpreted; whole runs; compile all
	@ASAP_TEST_LARGE=1 PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -n 2 --dist load --timeout 0 -o faulthandler_timeout=0 \
		tests/test_kernels_*.py tests/test_pretended_*.py tests/test_own_methods.py
	@$(PY) scripts/compile_kernels.py

bench-gpu: $(STAMP)  ## on a GPU: its tests, decisions against the CPU's, speeds against their targets, kernels, a LLaVA of 7B
	@$(PY) scripts/bench_gpu.py $(ARGS)

lint: $(STAMP)  ## check style, format and types
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m pyright --pythonpath $(PY)

check-macs: $(STAMP)  ## compare our MACs with fvcore's and torch's counters
	@$(PY) scripts/check_macs.py

imagenet-deit-base:  ## the paper's DeiT-Base block on ImageNet: make imagenet-deit-base IMAGENET=/data/imagenet
imagenet-deit-small:  ## the DeiT-Small block
imagenet-deit-tiny:  ## the DeiT-Tiny block
imagenet-vit-augreg:  ## the ViT-AugReg block (ViT-S/16)
imagenet-lvvit-s:  ## the LV-ViT-S block: LVVIT_S=/path/to/lvvit_s-26M-224-83.3.pth.tar
imagenet-alpha:  ## the table over the laziness alpha
overhead:  ## the overhead of accumulation
imagenet-deit-base imagenet-deit-small imagenet-deit-tiny imagenet-vit-augreg imagenet-lvvit-s imagenet-alpha overhead: _imagenet-given $(STAMP)
	$(call on_imagenet,experiment=$(subst -,_,$@))

imagenet-all: _imagenet-given $(STAMP)  ## all five backbones, and one table of them (LVVIT_S as above)
	$(call on_imagenet,-m experiment=imagenet_deit_base$(comma)imagenet_deit_small$(comma)imagenet_deit_tiny$(comma)imagenet_vit_augreg$(comma)imagenet_lvvit_s)

imagenet-anchors: _imagenet-given $(STAMP)  ## the anchor ablation on DeiT-Base and LV-ViT-S
	$(call on_imagenet,-m experiment=imagenet_anchors$(comma)imagenet_anchors_lvvit_s)

imagenet-matched-macs: _imagenet-given $(STAMP)  ## every method at the same MACs on DeiT-Base: BACKBONE=deit_small ARGS="budget=-25"
	$(call on_imagenet,experiment=matched_macs $(call in_shell,backbone=$(BACKBONE)) data=imagenet measure=full batch_size=128 workers=8)

# The groups are named, so that ARGS may have data.frames=16 or head.epochs=20: of a list of experiments
# hydra does not know them.
kinetics_groups = data=kinetics $(if $(filter head=%,$(ARGS)),,head=attention)
kinetics-clip-vit-large: _kinetics-given $(STAMP)  ## the paper's video block at 336 and 224 pixels: KINETICS=/data/k400; without training clips HEAD=FILE HEAD_224=FILE
	@$(PY) -m asap.run -m experiment=kinetics_clip_vit_large$(comma)kinetics_clip_vit_large_224 $(kinetics_groups) $(kinetics_path) $(ARGS)

# The benchmarks that DATA has are run one after the other, or ARGS="data=pope,gqa"; what it lacks is said first.
llava15: _llava-given $(STAMP)  ## the paper's LLaVA-1.5 table, of the benchmarks in a folder: LLAVA=/models/llava-1.5-7b-hf DATA=/data/eval
	$(call on_benchmarks,llava15)

llava-next: _llava-given $(STAMP)  ## the LLaVA-NeXT table: LLAVA=/models/llava-v1.6-vicuna-7b-hf DATA=/data/eval
	$(call on_benchmarks,llava_next)

llava-composition: _llava-given $(STAMP)  ## the composition of methods on LLaVA-1.5 (the paper's Table 10), likewise
	$(call on_benchmarks,composition)

llava-anchors: _llava-given $(STAMP)  ## the anchor ablation on LLaVA-NeXT (Table 11), likewise
	$(call on_benchmarks,anchor_llava_next)

on_benchmarks = @names=$$($(PY) scripts/benchmarks_in.py $(call in_shell,$(DATA)) --table $(1)) && \
	$(PY) -m asap.run -m experiment=$(1) $(if $(filter data=%,$(ARGS)),,data=$$names) $(of_llava) $(ARGS)
of_llava = $(call in_shell,benchmarks=$(call in_hydra,$(DATA))) \
	$(call in_shell,model=$(call in_hydra,$(LLAVA))) $(if $(filter precision=%,$(ARGS)),,precision=fp16)

llava-latency:  ## how long a question of POPE takes LLaVA-1.5, part by part, on one GPU, likewise
llava-next-latency:  ## the same of LLaVA-NeXT
llava-latency llava-next-latency: _llava-given $(STAMP)
	@$(PY) -m asap.run experiment=$(subst -,_,$@) $(of_llava) $(ARGS)

modular-cost: $(STAMP)  ## the paper's modular costs on LLaVA-NeXT, by arithmetic
	@$(PY) -m asap.run experiment=modular_cost $(ARGS)

matched-macs: $(STAMP)  ## every method at the same MACs on the embedded default: ARGS="budget=-25"
	@$(PY) -m asap.run experiment=matched_macs $(ARGS)

throughput: $(STAMP)  ## speed, latency, memory, energy: a rehearsal; on a GPU: make throughput IMAGENET=/data/imagenet
	@$(PY) -m asap.run $(if $(IMAGENET),experiment=imagenet_throughput $(imagenet_path),experiment=throughput) $(ARGS)

sweep-tau-k: $(STAMP)  ## tau against K on the embedded default; BACKBONE=deit_base IMAGENET=/data/imagenet; BACKBONE=clip_vit_large_336 KINETICS=/data/k400
	@$(PY) -m asap.run experiment=sweep_tau_k $(chosen_backbone) $(chosen_data) $(ARGS)

sweep-alpha: $(STAMP)  ## the laziness alpha, likewise
	@$(PY) -m asap.run experiment=sweep_alpha $(chosen_backbone) $(chosen_data) $(ARGS)

report: $(STAMP)  ## make tables and the page results/report.html from the records in results/runs
	@$(PY) -m asap.report

clean:  ## remove the virtual environment and caches (records in results/ stay)
	@test ! -f $(call in_shell,$(VENV)/pyvenv.cfg) || rm -rf $(call in_shell,$(VENV))
	@rm -rf .pytest_cache .ruff_cache .hypothesis build dist
	@find asap scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

_imagenet-given:
	@$(if $(IMAGENET),:,$(error IMAGENET is empty: make $(firstword $(MAKECMDGOALS)) IMAGENET=/data/imagenet, which is one of: a folder with val/<wnid>/*.JPEG; a folder of ILSVRC2012_val_*.JPEG with the devkit or a labels file; ILSVRC2012_img_val.tar; a Hugging Face snapshot of imagenet-1k (parquet)))

_kinetics-given:
	@$(if $(KINETICS),:,$(error KINETICS is empty: make $(firstword $(MAKECMDGOALS)) KINETICS=/data/k400, which is one of: CVDF's copy (val/ and annotations/val.csv); class folders val/<class name>/*.mp4; clips with PySlowFast's val.csv or mmaction2's kinetics400_val_list_videos.txt; OpenDataLab's videos_val/))

_llava-given:
	@$(if $(LLAVA),:,$(error LLAVA is empty: make $(firstword $(MAKECMDGOALS)) LLAVA=/models/llava-1.5-7b-hf DATA=/data/eval; LLAVA is the folder of a checkpoint as Hugging Face saves it, docs/reproduce-llava.md says what is in it))
	@$(if $(DATA),:,$(error DATA is empty: make $(firstword $(MAKECMDGOALS)) LLAVA=/models/llava-1.5-7b-hf DATA=/data/eval; DATA holds a folder for each benchmark (pope, gqa, MME, ...), as playground/data/eval of LLaVA's evaluation))

$(STAMP): pyproject.toml constraints.txt
	@$(if $(filter True,$(PYTHON_IS_NEW)),:,$(error PYTHON=$(PYTHON) is missing or older than Python 3.11: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.11))
	@echo "setting up the virtual environment (a few minutes the first time) ..."
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(call in_shell,$(VENV))
	@$(PY) -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(call in_shell,$@)
