PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help install quickstart test test-slow test-slurm test-browser lint docs lock bench clean
help:
	@echo "make quickstart   install into .venv and run the quickstart study (config.yaml)"
	@echo "make test         install and run the tests"
	@echo "make test-slow    the tests that take long: whole studies, faults of machines and file systems"
	@echo "make test-slurm   install a Slurm (Debian, as root) and run the tests on it"
	@echo "make test-browser the report in Chromium, which root on Debian gets by apt-get where it is missing"
	@echo "make lint         ruff, snakefmt, snakemake --lint, mypy"
	@echo "make docs         README.md and docs/ as a site: build/site/index.html"
	@echo "make lock         uv.lock anew, of pyproject.toml and constraints.txt (uv has to be installed)"
	@echo "make bench        time the engine against the published loop (bench/README.md)"
	@echo "make clean        remove results/ (resources/, the downloads, stay)"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' || \
		{ echo "hiddencost needs Python 3.11.4 or newer; '$(PYTHON)' is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	@echo "installing into .venv: some minutes, 7 GB"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar off \
		--constraint constraints.txt --editable '.[dev]'
	@touch $@

quickstart: install
	$(BIN)/snakemake
	@echo "report: results/quickstart/report.html"
	@echo "tables: results/quickstart/tables/"

test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-slow: install
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m slow

# the refusal where there is no root or no apt-get comes before the installation
test-slurm:
	@set -e; tests/slurm/start.sh; trap 'tests/slurm/start.sh stop' EXIT; \
	$(MAKE) --no-print-directory install; $(BIN)/python -m pytest tests/slurm

test-browser: install
	command -v chromium >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends chromium; }
	$(BIN)/python -m pytest tests/test_report.py -m browser

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	$(BIN)/mypy

docs: .venv/.docs
	$(BIN)/sphinx-build --builder html --conf-dir docs --fail-on-warning --keep-going --quiet . build/site
	@echo "site: build/site/index.html"

.venv/.docs: $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar off \
		--constraint constraints.txt --editable '.[docs]'
	@touch $@

# for uv sync: the set that pip installs
lock:
	uv lock --no-config $$(sed '/^#/d; s/^/-P /' constraints.txt)

bench: install
	$(BIN)/python bench/throughput.py
	$(BIN)/python bench/clip.py

clean:
	rm -rf results
