# `make demo` and `make test` are all a newcomer needs. Both share .venv and set it up once; it is renewed
# when pyproject.toml or constraints.txt changes.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# the first Python >= 3.11 that is here; choose another with `make PYTHON=...`
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: help venv demo test test-slow test-nightly lint format lock page docs docs-serve pictures wire clean

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "%-11s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: .venv/.stamp  ## set up .venv, with what tests and linters need too

.venv/.stamp: pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "Duetto needs Python 3.11 or newer: install it, or name it with make PYTHON=..." >&2; exit 1; }
	@echo "Setting up .venv: a minute or two, once (on Linux, CONTRIBUTING.md tells how to skip torch's GPU files)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,cloud,postgres,s3,flower,docs,dev]'
	@touch $@

demo: venv  ## two models answer and learn together
	$(BIN)/duetto demo

test: venv  ## the tests, slow ones apart
	$(BIN)/python -m pytest $(ARGS)

test-slow: venv  ## the slow tests only
	$(BIN)/python -m pytest -m slow $(ARGS)

test-nightly: venv  ## a thousand schedules of faults, over real processes; hours
	$(BIN)/python tests/faults/nightly.py --schedules 1000 --learning 50 $(ARGS)

lint: venv  ## style, types, and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv  ## write what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

page: web/node_modules/.stamp  ## build the device in the browser and the console (needs npm)
	npm --prefix web run --silent build

# What Material for MkDocs prints of its own end is told in CONTRIBUTING.md.
docs docs-serve: export NO_MKDOCS_2_WARNING := 1
docs: venv  ## build docs/ as a site, in site/
	$(BIN)/mkdocs build --strict --quiet

docs-serve: venv  ## show the site at http://127.0.0.1:8000, and again after each change
	$(BIN)/mkdocs serve --strict

pictures: venv page  ## take the pictures of docs/ anew (needs npm and Chromium)
	DUETTO_PICTURES=docs/pictures $(BIN)/python -m pytest -m slow -n0 tests/page/test_pictures.py $(ARGS)

web/node_modules/.stamp: web/package.json web/package-lock.json
	npm --prefix web ci --no-audit --no-fund --ignore-scripts --silent
	@touch $@

# uv lives in an environment of its own: Flower pins an older one. Pins stay as they are unless they must
# move; `make lock UPGRADE=--upgrade` moves them all. What torch adds for a GPU is not pinned: it depends on
# the build of torch that pip finds.
lock: .venv-lock/bin/uv  ## make constraints.txt again from pyproject.toml
	.venv-lock/bin/uv pip compile pyproject.toml --quiet $(UPGRADE) --output-file constraints.txt
	sed -i.bak -E '/^(nvidia-|cuda-|triton==)/d' constraints.txt && rm constraints.txt.bak

.venv-lock/bin/uv:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8'

clean:  ## remove both environments and the caches
	rm -rf .venv .venv-lock .venv-wire .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist site

wire: .venv-wire/bin/python web/node_modules/.stamp  ## make the protocol's messages again, with the oldest grpcio-tools that we allow
	.venv-wire/bin/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. duetto/transport/wire.proto
	.venv-wire/bin/python -m grpc_tools.protoc --plugin=protoc-gen-es=web/node_modules/.bin/protoc-gen-es \
		-I duetto/transport --es_out=web/page --es_opt=target=js wire.proto

.venv-wire/bin/python:
	$(PYTHON) -m venv .venv-wire
	.venv-wire/bin/python -m pip install --quiet --disable-pip-version-check 'grpcio-tools==1.60.0' 'setuptools<81'
