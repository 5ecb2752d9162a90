# Everything a fresh machine needs is Python 3.11 or newer, make and a compiler:
#   make demo    purify the embedded poisoned encoder and print the figures
#   make test    the whole test suite
PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CODE := sslpurify tests benchmarks docs

MOST_KILLS := 30

.PHONY: help demo test quick fuzz torture check format lint types layers site bench
.DEFAULT_GOAL := help

help:
	@echo 'make demo    purify the embedded poisoned encoder and print the figures'
	@echo 'make test    run the whole test suite'
	@echo 'make quick   run the tests that take seconds'
	@echo 'make fuzz    an hour of damaged checkpoints, tables and tars'
	@echo 'make torture kill purifications at 60 random moments and go on with them'
	@echo 'make check   formatting, lint, types, layers, the site and the whole test suite: what CI runs'
	@echo 'make site    the documentation, into site/'
	@echo 'make bench   the speed benchmarks; results go to benchmarks/results/'
	@echo 'make format  format the code and apply the safe lint fixes'

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/sslpurify demo

test: $(INSTALLED)
	$(BIN)/python -m pytest

quick: $(INSTALLED)
	$(BIN)/python -m pytest -m 'not slow'

fuzz: $(INSTALLED)
	SSLPURIFY_FUZZ_EXAMPLES=600000 $(BIN)/python -m pytest tests/fuzz

torture: $(INSTALLED)
	SSLPURIFY_KILLS=$(MOST_KILLS) $(BIN)/python -m pytest tests/torture

check: lint types layers site test

lint: $(INSTALLED)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)

types: $(INSTALLED)
	$(BIN)/pyright

layers: $(INSTALLED)
	$(BIN)/lint-imports

# The variable silences an announcement of the theme's authors about another program. No page may load
# anything from another server.
site: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	! grep -rlE '<(script|link|img|iframe)[^>]*(src|href)="?(https?:)?//' site --include='*.html'

format: $(INSTALLED)
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

bench: $(INSTALLED)
	$(BIN)/python benchmarks/speed/matching.py
	$(BIN)/python benchmarks/speed/curve_step.py
