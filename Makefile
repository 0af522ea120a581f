# Each target works in a fresh clone, with Python 3.11 or newer and nothing done before it.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTEST := $(BIN)/pytest -q --numprocesses auto --maxprocesses 8

# `make PYTHON=python3.13 test` makes the environment anew if it was made by another interpreter.
ifneq ($(PYTHON),$(shell cat $(STAMP) 2>/dev/null))
.PHONY: $(STAMP)
endif

# mkfs and its kin live where an ordinary user's PATH does not look.
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: help demo docs man site test test-unit test-filesystems test-faults test-builds torture lint bench tools clean

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(STAMP) ## record a real virtualenv, restore it, use it
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh docs/demo.sh

docs: $(STAMP) tools ## write what completion knows of the help, and what the console blocks of the pages print; as root
	@cd tests && ../$(BIN)/python -m support.reference
	@cd tests && ../$(BIN)/python -m support.consoles --write
	@cd tests && PATH="$(CURDIR)/$(BIN):$$PATH" ../$(BIN)/python -m support.casts

man: $(STAMP) ## make man pages of the help, in build/man: `man -l build/man/holo.1`
	@cd tests && ../$(BIN)/python -m support.reference ../build/man

site: $(STAMP) ## build the site of the documentation, in build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/site/mkdocs.yml

test: $(STAMP) tools ## run the tests, on real filesystems where it may mount them
	@$(PYTEST)

test-unit: $(STAMP) ## run the tests that need neither root nor a filesystem of their own
	@$(PYTEST) tests/unit

test-filesystems: $(STAMP) tools ## run the tests on real filesystems
	@$(PYTEST) tests/filesystems

test-faults: $(STAMP) tools ## run the tests of kills, errors, power cuts, attacks and hostile input
	@$(PYTEST) tests/faults

test-builds: $(STAMP) tools ## run the tests of environments that uv, npm and conda build
	@$(PYTEST) tests/builds

torture: $(STAMP) tools ## break everything that can break, everywhere, and count what is lost
	@$(PYTEST) -m torture --torture

lint: $(STAMP) ## check style, types and the direction of imports
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@printf '%s\n' linux darwin win32 | xargs -P 3 -I SYSTEM $(BIN)/mypy --platform SYSTEM --cache-dir .mypy_cache/SYSTEM
	@$(BIN)/lint-imports

bench: $(STAMP) ## measure against cp and uv
	@$(BIN)/python benchmarks/run.py

clean: ## remove everything that was made here
	@[ ! -d .demo/home ] || HOLO_HOME="$(CURDIR)/.demo/home" $(BIN)/holo uninstall --yes --quiet  # read-only trees
	rm -rf $(VENV) .demo build dist *.egg-info .hypothesis .import_linter_cache .*_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): pyproject.toml
	@echo "Setting up $(VENV) ..." >&2
	@if [ -L $(VENV) ]; then rm $(VENV); fi  # the environment that it leads to is another checkout's, and stays
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@echo $(PYTHON) > $@

# What the tests make and compare filesystems with, npm, locales, shells, what shows the manual and the site, and servers. Installed only where that needs no question: root with apt.
TOOLS := mkfs.btrfs:btrfs-progs mkfs.xfs:xfsprogs mkfs.ext4:e2fsprogs rsync:rsync setfattr:attr fish:fish strace:strace \
         npm:npm direnv:direnv bindfs:bindfs locale-gen:locales gcc:build-essential zsh:zsh tcsh:tcsh \
         groff:groff-base col:bsdextrautils chromium-headless-shell:chromium-headless-shell \
         unzip:unzip 7z:p7zip-full ssh-keygen:openssh-client nginx:nginx-light openssl:openssl

# While it says 101, Debian's packages start no service. The one of nginx does not start later either.
POLICY := /usr/sbin/policy-rc.d

tools:
	@for tool in $(TOOLS); do \
	    command -v $${tool%:*} >/dev/null || missing="$${missing:-} $${tool#*:}"; \
	done; \
	if [ -n "$${missing:-}" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing what the tests need:$$missing ..." >&2; \
	    export DEBIAN_FRONTEND=noninteractive; \
	    if [ ! -e $(POLICY) ]; then \
	        trap 'rm -f $(POLICY)' EXIT; trap 'exit 1' HUP INT TERM; \
	        printf '#!/bin/sh\nexit 101\n' >$(POLICY) && chmod 755 $(POLICY); \
	    fi; \
	    apt-get update -qq && apt-get install -qq -y --no-install-recommends $$missing >/dev/null || exit; \
	    case "$$missing" in *nginx*) systemctl --quiet disable nginx 2>/dev/null || true;; esac; \
	fi
