# `make help` lists what there is. Everything runs from .venv, which is made when it is missing.

PYTHON ?= python3
IP ?= 127.0.0.1
PORT ?= 8888
export IP PORT

.DEFAULT_GOAL := help
.PHONY: help setup lab test wheels test-fast test-browser test-real test-versions notebooks site slides real bench
.PHONY: pocket-llama format lint smollm2

help:  ## This list.
	@echo 'Targets:'
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

setup:  ## Makes .venv where it is missing or out of date (PYTHON=python3.12 picks the Python).
	@command -v "$(PYTHON)" > /dev/null || { \
	  echo "There is no $(PYTHON) here. On Debian and Ubuntu: apt-get install -y python3 python3-venv" >&2; exit 1; }
	@"$(PYTHON)" scripts/setup_env.py

lab: setup  ## Opens JupyterLab on the first lesson (IP=0.0.0.0 PORT=8888 to listen elsewhere).
	@.venv/bin/python scripts/lab.py

test: setup  ## Runs all tests, the notebooks among them.
	@.venv/bin/python -m pytest tests notebooks

# Not among them: what takes long to load, train, compile, or kill and start again.
SLOW = tests/test_architectures.py tests/test_pocket_llama.py
FAST = tests/activations tests/doctor tests/draw tests/lessons $(filter-out $(SLOW),$(wildcard tests/test_*.py))

test-fast: setup  ## Runs the tests of the tool and of the lessons' figures and widgets, in under a minute.
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -k 'not compiled and not stories' $(FAST)

wheels:  ## Fills wheels/ with what lab and test need with no network (WHEELS=/media/stick elsewhere).
	@$(MAKE) --no-print-directory setup WHEELS=
	@.venv/bin/python scripts/wheels.py

test-browser: setup  ## Uses the widgets in a real browser (on Debian as root, installs Chromium).
	@.venv/bin/python scripts/setup_browser.py
	@.venv/bin/python -m pytest tests/browser

smollm2:
	@TUTORIAL_MODEL=smollm2 $(MAKE) --no-print-directory setup
	@.venv/bin/python -m pip install -q --disable-pip-version-check --no-deps 'bitsandbytes>=0.45'

test-real: smollm2  ## Runs the lessons on SmolLM2 (93 MB), moves their widgets, and checks what they find.
	@NOTEBOOK_SECONDS=$${NOTEBOOK_SECONDS:-60} .venv/bin/python -m pytest tests/real tests/models/test_quantize.py -rA -q

test-versions: setup  ## Runs all tests on the oldest, the newest and one set of versions between (hours, 15 GB).
	@.venv/bin/python scripts/version_sets.py

notebooks: setup  ## Runs the notebooks and writes their outputs, ready to commit.
	@.venv/bin/python scripts/run_notebooks.py

site: .venv-site/ready  ## Builds the site of the series in build/site, which needs no network to read.
	@.venv-site/bin/python scripts/build_site.py

slides: .venv-site/ready  ## Builds a deck of slides for each lesson in build/slides.
	@.venv-site/bin/python scripts/build_slides.py

.venv-site/ready: requirements-site.txt
	@"$(PYTHON)" -m venv --clear .venv-site
	@.venv-site/bin/python -m pip install --disable-pip-version-check -r requirements-site.txt
	@touch $@

real: $(if $(TUTORIAL_MODEL),setup,smollm2)  ## Runs the lessons on SmolLM2 and stores what they found; TUTORIAL_MODEL=... for yours.
	@.venv/bin/python scripts/real.py

bench: setup  ## Times reading activations next to other tools; makes their environments (an hour or more).
	@.venv/bin/python bench/run.py

pocket-llama: setup  ## Trains the shipped model again from its seed (45 minutes on 2 cores at most).
	@.venv/bin/python pocket_llama/train.py

format: setup  ## Puts code and notebooks into the form that `make lint` asks for.
	@.venv/bin/python -m ruff check --fix-only --quiet
	@.venv/bin/python -m ruff format

SCHEMA = .venv/bin/check-jsonschema --quiet --builtin-schema

lint: setup  ## Checks code, notebooks, types, spelling, who imports whom, and what GitHub reads.
	@.venv/bin/python -m ruff check
	@.venv/bin/python -m ruff format --check
	@.venv/bin/python -m mypy
	@.venv/bin/lint-imports --no-logo
	@.venv/bin/python scripts/check_private_names.py
	@.venv/bin/codespell
	@$(SCHEMA) vendor.github-workflows .github/workflows/*.yml
	@$(SCHEMA) vendor.github-issue-forms .github/ISSUE_TEMPLATE/*.yml
	@$(SCHEMA) vendor.citation-file-format CITATION.cff
