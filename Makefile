# DFS: every command of daily work. `make help` lists them.
PYTHON ?= python3
PORT ?= 8180
MINUTES ?= 30
WORKERS ?= $(shell expr 2 \* $$(nproc)) # tests wait more than they compute
PREFIX ?= /usr/local
DESTDIR ?=
SBINDIR ?= /sbin# where mount(8) looks for its helpers
VENV := .venv
BIN := $(VENV)/bin
PARALLEL := -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed

.PHONY: help setup up test test-mount test-swarm test-mesh test-all soak lint bench lock clean install uninstall

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

setup: $(RUNTIME) ## make .venv from the lock file

up: $(RUNTIME) ## a namenode, 3 datanodes and a mount at ./mnt (with FUSE), state in ./var, until Ctrl-C
	@$(BIN)/python dfs.py up --datanodes 3 --data ./var --port $(PORT) $(if $(wildcard /dev/fuse),--mount ./mnt)

test: $(DEV) ## run the tests of the cluster, WORKERS=4 side by side
	$(BIN)/python -m pytest $(PARALLEL)

test-mount: $(DEV) ## run the tests of mounts: needs /dev/fuse
	$(BIN)/python -m pytest $(PARALLEL) tests/mount

test-swarm: $(DEV) ## run the tests of the image and of stacks on a swarm: needs root, docker.io, docker-compose, docker-registry, debootstrap
	$(BIN)/python -m pytest -p tests.swarm.passed --stamp swarm tests/swarm --ignore tests/swarm/mesh_vm

test-mesh: $(DEV) ## behind a swarm's true routing mesh, in a virtual machine: needs qemu-system-x86 and what test-swarm needs
	$(BIN)/python -m pytest -p tests.swarm.passed --stamp mesh -s tests/swarm/mesh_vm

test-all: ## lint and all tests, whatever has passed before
	for target in lint test test-mount test-swarm test-mesh; do $(MAKE) $$target || exit; done

soak: $(DEV) ## faults for MINUTES=30, with new seeds, until something is lost
	$(BIN)/python -m tests.faults.soak --minutes $(MINUTES)

lint: $(DEV) ## ruff, and mypy --strict over the tests and bench as well
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(DEV) ## measure beside what the machine can do
	$(BIN)/python -m bench

install: $(RUNTIME) ## mount.dfs for mount(8), fstab and systemd, and the command dfs, as root: PREFIX=/usr/local DESTDIR=
	install -d "$(DESTDIR)$(SBINDIR)" "$(DESTDIR)$(PREFIX)/bin"
	printf '#!/bin/sh\nPATH=$${PATH:-/usr/sbin:/usr/bin:/sbin:/bin}\nexport PATH\nexec "%s" --mount-helper "$$@"\n' "$(CURDIR)/dfs.py" > "$(DESTDIR)$(SBINDIR)/mount.dfs"
	chmod 755 "$(DESTDIR)$(SBINDIR)/mount.dfs"
	ln -sf mount.dfs "$(DESTDIR)$(SBINDIR)/mount.fuse.dfs"
	printf '#!/bin/sh\nexec "%s" "$$@"\n' "$(CURDIR)/dfs.py" > "$(DESTDIR)$(PREFIX)/bin/dfs"
	chmod 755 "$(DESTDIR)$(PREFIX)/bin/dfs"

uninstall: ## remove what install has made
	rm -f "$(DESTDIR)$(SBINDIR)/mount.dfs" "$(DESTDIR)$(SBINDIR)/mount.fuse.dfs" "$(DESTDIR)$(PREFIX)/bin/dfs"

lock: ## resolve the lock files anew (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes pyproject.toml -o requirements/runtime.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes pyproject.toml --group dev -o requirements/dev.lock

clean: ## remove .venv (never ./var)
	rm -rf $(VENV)

$(RUNTIME): requirements/runtime.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/runtime.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): requirements/dev.lock $(RUNTIME)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@touch $@
