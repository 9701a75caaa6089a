# Each target makes its own environment in .venv. PYTHON names the interpreter to make it with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install -c constraints.txt

.PHONY: demo docs test test-slow lint typecheck wheel bench step-cost bench-cifar10 clean

demo: $(VENV)/.demo
	$(BIN)/python examples/digits_gan.py --out out/digits_gan

# Files side by side: `make test JOBS=8`. What a file sets up for its tests is set up once.
JOBS ?= 2
test: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(VENV)/.dev
	$(BIN)/mypy

# Warnings are errors: a broken reference, an indented docstring.
docs: $(VENV)/.dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs out/docs

wheel: $(VENV)/.dev
	$(BIN)/python .ci/check_wheel.py

# Keeps each run under out/bench; `BENCH=--benchmark-compare` shows the change since the last one.
bench: $(VENV)/.dev
	$(BIN)/python -m pytest -q benchmarks/micro.py --benchmark-group-by=func \
		--benchmark-columns=median,iqr,rounds --benchmark-storage=out/bench --benchmark-autosave $(BENCH)

step-cost: $(VENV)/.dev
	$(BIN)/python -m benchmarks.step_cost

# Goes on from where it was stopped. `make bench-cifar10 PROTOCOL=smoke` tries everything out.
PROTOCOL ?= contrasts
WORKERS ?= 2
bench-cifar10: $(VENV)/.dev
	$(BIN)/python -m benchmarks.cifar10 run $(PROTOCOL) --out out/cifar10-$(PROTOCOL) --workers $(WORKERS)
	$(BIN)/python -m benchmarks.cifar10 report out/cifar10-$(PROTOCOL)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e ".[demo]"
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist out *.egg-info
