# Each target makes its own environment in .venv. PYTHON names the interpreter to make it with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Modules are compiled when they are first imported, most of them never.
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --no-compile \
	-c constraints.txt

.PHONY: help demo docs test test-slow lint typecheck wheel bench step-cost bench-cifar10 clean

help:
	@echo "make demo           GANs on real digits without regularization, ACGD beside Adam"
	@echo "make test           the tests, two files at a time (JOBS=8 for more)"
	@echo "make test-slow      the tests that take minutes"
	@echo "make docs           the documentation, into out/docs"
	@echo "make lint           style, workflows and citation file"
	@echo "make typecheck      types of the package, of its examples and of a user's program"
	@echo "make wheel          builds and installs in each way, and uses what comes out"
	@echo "make bench          times of products, solvers and vectors"
	@echo "make step-cost      times of whole steps, beside other packages"
	@echo "make bench-cifar10  the comparison on CIFAR-10 (PROTOCOL=smoke tries it out)"
	@echo "make clean          removes the environment and everything built"

demo: $(VENV)/.demo
	$(BIN)/python examples/digits_gan.py --out out/digits_gan

# Files side by side: `make test JOBS=8`. What a file sets up for its tests is set up once.
# A test that hangs fails, with where it hangs.
JOBS ?= 2
# Tests start many interpreters, and torch is compiled to bytecode for longer than it is imported.
# What the first one compiles is kept, also where the environment asks for none to be written, as
# that of a container often does.
test test-slow: export PYTHONDONTWRITEBYTECODE :=
test test-slow: export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/bytecode
test: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile \
		-o faulthandler_timeout=300 -o faulthandler_exit_on_timeout=true --max-worker-restart 0

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

# Not typed: torch's own `backward`, and some of what examples plot with.
typecheck: $(VENV)/.dev
	$(BIN)/mypy
	$(BIN)/mypy tests/typed_user.py
	$(BIN)/mypy --allow-untyped-calls --disable-error-code=import-untyped examples
	$(BIN)/basedpyright --level=error

# Warnings are errors: a broken reference, an indented docstring. Then tests look at the pages.
docs: $(VENV)/.docs $(VENV)/.dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs out/docs
	COMPOPT_SITE=out/docs $(BIN)/python -m pytest -q -m slow tests/test_site.py

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

$(VENV)/.docs: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e ".[docs]"
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist out *.egg-info
