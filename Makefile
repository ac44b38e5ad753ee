# One line a target, no logic; CONTRIBUTING.md has the same commands written out.
# The environment is made without Debian's python3-venv, and pip writes into it from outside: a system whose Python is
# externally managed (PEP 668) needs nothing but python3, pip and make.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check
export PIP_ROOT_USER_ACTION = ignore

.PHONY: up test e2e check fmt bench golden docs lock deps-debian
.DELETE_ON_ERROR:

up: .venv/.ok
	$(BIN)/trueup up specs

test: .venv/.dev
	$(BIN)/pytest --numprocesses=logical --dist=loadgroup

e2e: .venv/.dev
	$(BIN)/pytest tests/e2e

check: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: .venv/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv/.dev
	$(BIN)/pytest --capture=no --timeout=0 tests/bench

golden: .venv/.dev
	$(BIN)/pytest --golden tests

docs: .venv/.dev
	$(BIN)/python -m docs.generate

# Newest versions of everything, then the run-time part of the same. uv is needed for this alone: it locks for every
# Python and processor at once.
lock:
	uv pip compile pyproject.toml --upgrade --all-extras --group build $(LOCK) --output-file requirements/dev.lock
	uv pip compile pyproject.toml --group build --constraint requirements/dev.lock $(LOCK) --output-file requirements/run.lock

LOCK := --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url --custom-compile-command "make lock" --quiet

# What the tests of containers, of the page, of a proxy and of git over ssh use; without it they are skipped and say so.
deps-debian:
	apt-get -o DPkg::Lock::Timeout=300 install --quiet --quiet --yes --no-install-recommends $(DEBIAN)

DEBIAN := busybox-static chromium docker.io e2fsprogs git gpg gpg-agent gpgconf iproute2 iptables nginx-light \
  openssh-client openssh-server procps strace

.venv/.ok: requirements/run.lock pyproject.toml
	$(call install,run)
	touch $@

.venv/.dev: requirements/dev.lock pyproject.toml
	$(call install,dev)
	touch .venv/.ok $@

define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'trueup needs Python 3.11 or newer, and $(PYTHON) is not: make PYTHON=/path/to/python3.11' >&2; exit 1; }
@$(PYTHON) -c 'import pip' 2>/dev/null || { echo '$(PYTHON) has no pip (22.3 or newer is needed): apt-get install python3-pip' >&2; exit 1; }
$(PYTHON) -m venv --without-pip .venv
$(PIP) install --quiet --requirement requirements/$(1).lock
$(PIP) install --quiet --no-deps --no-build-isolation --editable .
endef
