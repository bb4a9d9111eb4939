# `make run` and `make test` do all the set-up; nothing else has to be installed first.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
export OMP_NUM_THREADS ?= 1
# What `make test` runs; by default all: `make test TESTS=tests/test_cli.py`.
TESTS ?=
# Processes that share them, a file at a time. Many tests start processes of their own: no more than cores.
WORKERS ?= 2

.PHONY: run test test-slow lint bench docs report reliability schema clean docs/kernels.md

run: $(VENV)/installed
	$(BIN)/harness run suites/vision.yaml

test: $(VENV)/installed
	$(BIN)/python -m pytest --benchmark-skip -n $(WORKERS) --dist loadfile $(TESTS)

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow --timeout 1800 --benchmark-skip

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks
	$(BIN)/python -m pytest -q tests/benchmarks/bench_operations.py --benchmark-json=.benchmarks/operations.json

# The manual: build/docs/index.html. Broken links and pages outside of the navigation fail it; it asks no server.
# To search in it: `python -m http.server -d build/docs`.
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The pages of the committed records (build/report), docs/results.md, and the picture of the README.
report: $(VENV)/installed
	$(BIN)/harness report -o build/report --results docs/results.md --registry registry/reference
	$(BIN)/harness leaderboard --suite vision --registry registry/reference --svg docs/vision.svg >/dev/null

# About half an hour: every fault of docs/reliability.md, as often as that page says.
reliability: $(VENV)/installed
	$(BIN)/python -m tests.faults --write docs/reliability.md

# The tables of the page, from the records in registry/reference; measures nothing.
docs/kernels.md: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.kernels --write $@

schema: $(VENV)/installed
	$(BIN)/harness schema > suites/suite.schema.json

# Exact versions: anything looser may pull another torch, with gigabytes of CUDA packages.
$(VENV)/installed: pyproject.toml plugins/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,examples,docs,images,report]' -e 'plugins[certify,ode]'
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
