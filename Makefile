# `make run` starts the embedded twin, `make test` runs every test; both first build .venv from the hashed lock.
SHELL := /bin/bash
LOCK := infra/deploy/requirements.txt
DEV_LOCK := infra/deploy/requirements-dev.txt
PY := .venv/bin/python
# The newest Python of 3.13, 3.12, 3.11 that really runs (a pyenv shim may exist and refuse), also under pyenv and uv.
FIND_PYTHON = for v in 3.13 3.12 3.11; do \
	for p in python$$v $$HOME/.pyenv/versions/$$v.*/bin/python $$HOME/.local/share/uv/python/cpython-$$v.*/bin/python3 python3 python; do \
		"$$p" -c "import sys, venv, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != '$$v')" >/dev/null 2>&1 && { echo "$$p"; exit; }; \
	done; done

.PHONY: run test lint lock venv bench clean
venv: .venv/.dev

.venv/.uv:
	@python=$$($(FIND_PYTHON)); \
	test -n "$$python" || { echo "make: no usable Python found: expected 3.11, 3.12 or 3.13 with venv, found $$(python3 --version 2>&1)"; exit 1; }; \
	echo "building .venv with $$($$python --version)"; \
	rm -rf .venv && "$$python" -m venv .venv && $(PY) -m pip install --quiet --disable-pip-version-check "uv>=0.8"
	@touch $@

.venv/.run: .venv/.uv $(LOCK) pyproject.toml
	@.venv/bin/uv pip install --quiet --python $(PY) --require-hashes --requirements $(LOCK)
	@.venv/bin/uv pip install --quiet --python $(PY) --no-deps --editable .
	@touch $@

.venv/.dev: .venv/.run $(DEV_LOCK)
	@.venv/bin/uv pip install --quiet --python $(PY) --require-hashes --requirements $(DEV_LOCK)
	@touch $@

run: .venv/.run
	@.venv/bin/twin up

test: .venv/.dev
	@.venv/bin/python -m pytest

lint: .venv/.dev
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/lint-imports && .venv/bin/mypy

lock: .venv/.uv
	@.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --output-file $(LOCK) pyproject.toml
	@.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --group dev --constraints $(LOCK) --output-file $(DEV_LOCK) pyproject.toml

clean:
	@rm -rf .venv .twin build dist *.egg-info
