# make demo    the whole pipeline on the drawn data set; ends with the main figures and where the report is;
#              once everything is there, Snakemake says that nothing is to be done
# make test    all tests          make lint    ruff, mypy, snakemake --lint, snakefmt
# make kill-test    kills the pipeline with -9 in every stage and compares with an unbroken run
# make bench   the quick forms of the speed comparisons, a few minutes (docs/speed.md has the full ones)
# make dag     the graph of rules as text (and as dag.svg where graphviz is installed)
# make clean   removes the environment; results/ stays

PYTHON ?= python3
VENV ?= .venv
CORES ?= all
GPUS ?= 1
BIN := $(VENV)/bin
CONFIG := results/config.yaml

.DEFAULT_GOAL := demo
.PHONY: demo test kill-test bench lint dag clean

# Stamps: an environment is made again when pyproject.toml is newer.
$(VENV)/.run: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.run
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(VENV)/.run
	$(BIN)/snakemake --cores $(CORES) --resources gpu=$(GPUS)
	@echo
	@$(BIN)/acar headline --config $(CONFIG)

# Files side by side, one a core; `pytest` alone runs them one after another.
test: $(VENV)/.dev
	$(BIN)/pytest -n auto --dist loadfile

kill-test: $(VENV)/.dev
	$(BIN)/python tests/kills/kill_test.py

bench: $(VENV)/.run
	$(BIN)/python benchmarks/relation_head.py --quick
	$(BIN)/python benchmarks/relation_network.py --quick
	$(BIN)/python benchmarks/window_prediction.py --seconds 30 --rounds 1
	$(BIN)/python benchmarks/whole_model.py --quick

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

dag: $(VENV)/.run
	@$(BIN)/snakemake --rulegraph > dag.dot
	@if command -v dot > /dev/null; then dot -Tsvg dag.dot > dag.svg && echo dag.svg; else cat dag.dot; fi

clean:
	rm -rf $(VENV) dag.dot dag.svg
