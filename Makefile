# `make` lists the targets. PYTHON chooses the interpreter (3.11 or newer), VENV the folder of the environment,
# GAI_FAST_BUILD=auto|native|pure what is built (auto: native where a C compiler is).

PYTHON ?= python3
VENV   ?= .venv
LOCAL  ?= .venv-local
VERSIONS ?=
ARGS   ?=
# Of `make soak`; SEED repeats a former one.
MINUTES ?= 10
STORE   ?= sqlite
KILLS   ?= 1000
RUNS    ?= 400

BUILD   := $(or $(GAI_FAST_BUILD),auto)
# On a terminal the progress is shown. What is installed becomes bytecode when it is first imported, and most never is.
INSTALL := TOOLS=$(VENV) VERBOSE=$(if $(MAKE_TERMOUT),1,) ci/install.sh

# What compiles has an environment of its own: compiling begins while the package's dependencies are installed, and mypyc
# reads none of them but those it needs (13 s of a core instead of 22, for the same C files).
BUILDER  := $(VENV)/build
REQUIRES := $(shell sed -n 's/", "/" "/g; s/^requires = \[\(.*\)\]$$/\1/p' pyproject.toml)
KERNELS  := $(shell find csrc gai_fast -name '*.[ch]' -o -name '*.pyx' -o -name '*.pxd' 2>/dev/null | grep -v '^gai_fast/.*\.c$$')
MODULES  := $(shell sed 's|.*|gai_fast/&.py|' building/compiled.txt)
SCRIPTS  := pyproject.toml setup.py $(wildcard building/*)

# A stamp names what is compiled in this folder: COMPILED all of a kind of build, ONLY_KERNELS what `make serve` needs.
# Each build removes the stamps of others, whose products it replaces.
INSTALLED    := $(VENV)/.installed
COMPILED     := $(VENV)/.compiled-$(BUILD)
ONLY_KERNELS := $(COMPILED)-kernels
# What was compiled once stays compiled.
SERVED := $(if $(filter pure,$(BUILD))$(wildcard $(VENV)/.compiled-auto $(VENV)/.compiled-native),$(COMPILED),$(ONLY_KERNELS))
# Installs and compiles side by side. A second make, since this one may have been called with `clean` as well.
BESIDE := +@$(MAKE) -s -j2

.DEFAULT_GOAL := help
.PHONY: help serve served complete local install test check docs exhaustive soak soak-limits soak-machines soak-restarts soak-outlive soak-charged kill-runs spent-runs soak-long leaks sanitize test-local programs mcp bench bench-quick bench-others wheels clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s%s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

serve: served  ## run the gateway with the demo model on http://127.0.0.1:8080 (ARGS="--port 9000")
	@exec $(VENV)/bin/gai-fast serve $(ARGS)

# What these two make ready: the package with its kernels, or with everything that is compiled.
served:
	$(BESIDE) $(INSTALLED) $(SERVED)

complete:
	$(BESIDE) $(INSTALLED) $(COMPILED)

local: $(LOCAL)/.installed  ## run a real small model on this machine behind the gateway (see docs/local-model.md)
	@exec $(LOCAL)/bin/python tools/local_model.py $(ARGS)

install:  ## make the environment for development in .venv, with everything compiled
	$(BESIDE) $(INSTALLED)-dev $(COMPILED)

test: install  ## linters, types and every test this machine can run
	@PYTHON=$(VENV)/bin/python ci/check.sh
	@PYTHON=$(VENV)/bin/python ci/test.sh $(ARGS)

check: install  ## linters and types only
	@PYTHON=$(VENV)/bin/python ci/check.sh

# The environment that is there will do, so that the site can be built without a network. The pages need nothing compiled.
docs:  ## the pages as a site in build/site; a warning or a link that leads nowhere is a failure
	@$(VENV)/bin/python -c 'import furo, myst_parser, sphinx' 2>/dev/null || $(MAKE) -s $(INSTALLED)-docs
	@PYTHON=$(VENV)/bin/python ci/docs.sh
	@echo 'build/site/index.html'

RACES = tests/integration/test_workers.py::test_of_requests_with_one_key_on_several_workers_one_asks_the_upstream
exhaustive: install  ## recordings, kernels, faults, resumes at every cut; pauses of a minute; 1,000 races for a key; chains of 1,000 turns; walks of n and 2n (long)
	@GAI_FAST_EXHAUSTIVE=1 PYTHON=$(VENV)/bin/python ci/test.sh --timeout 1800 tests/corpus tests/parity tests/faults \
		tests/integration/stores/test_resume_matrix.py tests/integration/stores/test_chains_of_processes.py \
		tests/integration/stores/test_fence.py $(RACES) $(ARGS)
	@PYTHON=$(VENV)/bin/python ci/test.sh -m long tests/linear

# What takes minutes and rarely breaks is not part of `.ci/run`: the target above, and those below up to `mcp`.
soak: install  ## ten minutes of streams, kills and failures, and a table of what was lost (MINUTES=, STORE=memory|sqlite|redis, SEED=)
	@$(VENV)/bin/python -m tests.soak --minutes $(MINUTES) --store $(STORE) $(if $(SEED),--seed $(SEED)) $(ARGS)

soak-machines: install  ## some minutes of two servers of one Redis, with partitions, pauses, losses, failovers and kills (SEED=, ARGS="--faults flush,failover")
	@$(VENV)/bin/python -m tests.soak.machines $(if $(SEED),--seed $(SEED)) $(ARGS)

soak-restarts: install  ## 45 rolling restarts under steady connections, with streams that outlast their server's grace (SEED=, ARGS="--workers 1")
	@$(VENV)/bin/python -m tests.soak.restarts $(if $(SEED),--seed $(SEED)) $(ARGS)

soak-outlive: install  ## servers are killed amid streams that others go on with, over SQLite and Redis (KILLS=, SEED=, ARGS="--stores redis --sync batched")
	@$(VENV)/bin/python -m tests.soak.outlive --kills $(KILLS) $(if $(SEED),--seed $(SEED)) $(ARGS)

soak-charged: install  ## the same with prices: each key is charged what the provider has counted, over 300 kills (SEED=, ARGS="--kills 20 --stores redis")
	@$(VENV)/bin/python -m tests.soak.outlive.charged $(if $(SEED),--seed $(SEED)) $(ARGS)

kill-runs: install  ## a worker, a server, the store or the tools are killed amid runs: no call is made twice (RUNS=, SEED=, ARGS="--stores redis --sync batched")
	@$(VENV)/bin/python -m tests.soak.kill_runs --runs $(RUNS) $(if $(SEED),--seed $(SEED)) $(ARGS)

spent-runs: install  ## runs of several turns by keys with limits, over each store: the report of spend is what was counted, exactly (SEED=, ARGS="--runs 50 --stores redis")
	@$(VENV)/bin/python -m tests.soak.spent_runs $(if $(SEED),--seed $(SEED)) $(ARGS)

soak-long: install  ## answers of 700 seconds, most of them silence, while their server is replaced (ARGS="--seconds 60")
	@$(VENV)/bin/python -m tests.soak.long $(ARGS)

soak-limits: install  ## ten minutes of keys with limits, and a table of what was admitted against what should have been (MINUTES=, SEED=, ARGS="--store sqlite")
	@$(VENV)/bin/python -m tests.soak.limited --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

leaks: install  ## a million streams and requests with guards in process: whether a word that must not be said is sent, or another one changed (SEED=, ARGS="--cases 10000")
	@$(VENV)/bin/python -m tests.leaks $(if $(SEED),--seed $(SEED)) $(ARGS)

sanitize: install  ## the kernels' tests under the address and undefined-behaviour sanitizers (long)
	@PYTHON=$(VENV)/bin/python ci/sanitize.sh $(ARGS)

test-local: install $(LOCAL)/.installed  ## the tests of a real model on this machine (long)
	@GAI_FAST_REQUIRE_ALL=1 PYTHON=$(VENV)/bin/python ci/test.sh -m long tests/integration/test_local_model.py $(ARGS)

programs: complete  ## run the programs of programs/README.md, unmodified, through the gateway, and print a table (long; ARGS="--only codex")
	@$(VENV)/bin/python -m programs $(ARGS)

mcp: install  ## the public conformance suite of MCP, from npm, against our client
	@PYTHON=$(VENV)/bin/python ci/mcp.sh

bench: complete  ## measure gai-fast beside other servers, table and benchmarks/results/report.html (an hour; GAI_FAST_REQUIRE_ALL=1: none may be missing)
	@$(VENV)/bin/python -m benchmarks.macro $(ARGS)

bench-quick: complete  ## the same with the contenders that are quick to install: less than three minutes, the first time two more to install them
	@$(VENV)/bin/python -m benchmarks.macro --quick $(ARGS)

bench-others: complete  ## measure what slow clients and a slow store cost everybody else: four minutes (needs redis-server)
	@$(VENV)/bin/python -m benchmarks.macro.others $(ARGS)

wheels:  ## build sdist and wheel into dist/, install them in new environments and test them (VERSIONS="3.12 3.13": their wheels as well)
	@PYTHON=$(PYTHON) ci/wheels.sh
	@set -e; for version in $(VERSIONS); do \
		PYTHON=$$(ci/find-python.sh $$version) ci/wheel.sh "$$(echo dist/*.tar.gz)" dist build/wheel-$$version; \
	done

clean:  ## remove environments, caches and everything built
	rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	rm -rf benchmarks/.cache benchmarks/results
	find gai_fast \( -name '*.so' -o -name '*.c' -o -name '__pycache__' \) -prune -exec rm -rf {} +

$(VENV)/bin/python $(LOCAL)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'gai-fast needs Python 3.11 or newer; name one: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -m venv $(if $(filter $(VENV)/%,$@),--without-pip) $(@D:/bin=)

# The interpreter's pip installs another there in a second; to unpack the one that Python brings takes 4, in which nothing
# else can run. It does so if the interpreter has no pip, or one before 22.3.
$(VENV)/bin/uv: | $(VENV)/bin/python
	@$(PYTHON) -m pip --python $(VENV)/bin/python install -qq --disable-pip-version-check --no-compile pip uv 2>/dev/null || \
		$(PYTHON) -m venv $(VENV)
	@test -x $@ || $(VENV)/bin/python -m pip install -qq --disable-pip-version-check uv || \
		echo 'no uv: pip takes longer' >&2

# No build environment is needed for a package that compiles nothing here. Its dependencies, which may need one,
# are those of the package that is then installed: $(1) is its name, and extras.
define install_package
@$(INSTALL) $(VENV)/bin/python $(filter "setuptools%,$(REQUIRES))
@GAI_FAST_BUILD=pure $(INSTALL) $(VENV)/bin/python --no-build-isolation --no-deps -e .
@$(INSTALL) $(VENV)/bin/python '$(1)'
endef

$(INSTALLED): pyproject.toml | $(VENV)/bin/uv
	@echo 'installing gai-fast in $(VENV) …'
	$(call install_package,gai-fast)
	@touch $@

$(INSTALLED)-dev: pyproject.toml | $(VENV)/bin/uv
	@echo 'installing gai-fast in $(VENV), with what the tests need …'
	$(call install_package,gai-fast[dev])
	@touch $(INSTALLED) $@

$(INSTALLED)-docs: pyproject.toml | $(VENV)/bin/uv
	@echo 'installing gai-fast in $(VENV), with what the pages need …'
	$(call install_package,gai-fast[docs])
	@touch $(INSTALLED) $@

$(BUILDER)/bin/python: | $(VENV)/bin/uv
	@$(VENV)/bin/python -m venv --without-pip $(BUILDER)

ifeq ($(BUILD),pure)
# What an earlier build has left would be imported in place of the sources.
$(COMPILED): | $(VENV)/bin/python
	@find gai_fast -name '*.so' -delete
	@rm -f .venv*/.compiled-* $(VENV)/.compiled-*
	@touch $@
else
# Compiles the modules as well if $(1) is 1, with the packages $(2). What a build prints is shown where it fails.
define compile
@$(INSTALL) $(BUILDER)/bin/python $(2)
@rm -f $(VENV)/.compiled-*
@GAI_FAST_BUILD=$(BUILD) GAI_FAST_MYPYC=$(1) $(BUILDER)/bin/python setup.py -q build_ext --inplace >$(VENV)/compile.log || \
	{ cat $(VENV)/compile.log >&2; exit 1; }
endef

$(ONLY_KERNELS): $(SCRIPTS) $(KERNELS) | $(BUILDER)/bin/python
	@echo 'compiling the kernels ($(BUILD) build): half a minute …'
	$(call compile,0,$(filter "setuptools% "cython%,$(REQUIRES)))
	@touch $@

$(COMPILED): $(SCRIPTS) $(KERNELS) $(MODULES) | $(BUILDER)/bin/python
	@echo 'compiling the kernels and the modules around them ($(BUILD) build): a minute or more …'
	$(call compile,1,$(REQUIRES))
	@touch $(ONLY_KERNELS) $@
endif

# What was compiled in this folder for $(VENV) serves here too. llama.cpp for "this CPU" would die of what a CPU tells
# and its hypervisor keeps back (AMX), and pip keeps what it builds.
$(LOCAL)/.installed: pyproject.toml | $(LOCAL)/bin/python $(SERVED)
	@echo 'installing a model that runs on this machine in $(LOCAL); the first time llama.cpp is compiled, some minutes …'
	@CMAKE_ARGS="-DGGML_NATIVE=OFF $$CMAKE_ARGS" GAI_FAST_BUILD=pure \
		$(LOCAL)/bin/python -m pip $(if $(MAKE_TERMOUT),,-qq) --disable-pip-version-check install -e '.[local]'
	@touch $@
