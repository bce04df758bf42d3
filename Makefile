# Needs python3 (3.11 or newer) and make. Everything else comes into .tools/ and .venv/ of this
# folder; nothing is installed outside it. Delete those two folders to install anew.

UV_VERSION := 0.13.8
PYTHON ?= python3

UV := .tools/uv-$(UV_VERSION)/bin/uv
INSTALLED := .venv/.installed
BIN := .venv/bin
DBT := $(BIN)/dbt --no-use-colors --log-level-file none
DBT_PROJECT := --project-dir dbt_project --profiles-dir .

export DO_NOT_TRACK := 1
export UV_CACHE_DIR := $(CURDIR)/.tools/uv-cache
export UV_PYTHON_DOWNLOADS := never
unexport VIRTUAL_ENV

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help run test up down serve lint docs bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  make run INPUT='…' [MARKETPLACE=US] [ACCOUNT=name]   your own files, folders or globs"

run: $(INSTALLED) $(if $(INPUT),,sample) ## start the database and sync: the sample, or INPUT
	@$(BIN)/warehouse up
	@$(BIN)/warehouse sync-sqp $(or $(INPUT),sample) \
	    $(if $(MARKETPLACE),--marketplace '$(MARKETPLACE)') $(if $(ACCOUNT),--account '$(ACCOUNT)')

test: $(INSTALLED) ## run every test, on two workers (one where PGHOST names the server)
	@$(BIN)/pytest $(if $(PGHOST),,--numprocesses 2 --dist loadscope)

up: $(INSTALLED) ## start the database and migrate it
	@$(BIN)/warehouse up

down: $(INSTALLED) ## stop the database
	@$(BIN)/warehouse down

serve: sample up ## Prefect server, worker and schedules on this machine, until Ctrl-C
	@$(BIN)/warehouse serve

lint: up ## check style, types, spelling and SQL (which dbt compiles); parse the models, their conventions
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/yamllint --strict .
	$(BIN)/typos
	$(BIN)/sqlfluff lint --disable-progress-bar dbt_project/models dbt_project/data_tests
	$(DBT) --quiet --warn-error parse $(DBT_PROJECT) --target bigquery
	$(DBT) --quiet --warn-error parse $(DBT_PROJECT) --target dev
	@COLUMNS=200 $(BIN)/dbt-bouncer run --show-all-failures

docs: up ## write the site: quality, plots, models explained, runbooks (site/index.html)
	@$(BIN)/warehouse site

bench: $(INSTALLED) ## measure what the claims about speed rest on
	@$(BIN)/python -m benchmarks

clean: $(if $(wildcard .warehouse),$(INSTALLED)) ## stop the database and delete it, with all that was generated
	@if [ -d .warehouse ]; then env -u WAREHOUSE_HOME $(BIN)/warehouse down --delete-data --yes; fi
	@if [ -e .warehouse/server.json ]; then \
	    echo "the embedded database was left alone, because PGHOST is set: unset it first" >&2; \
	    exit 1; \
	fi
	@rm -rf .warehouse sample site screenshots logs dbt_project/target dbt_project/logs
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -not -path './.tools/*' -prune -exec rm -rf {} +

sample: | $(INSTALLED)
	@rm -rf .tools/sample
	@$(BIN)/warehouse sample .tools/sample
	@mv .tools/sample sample

$(INSTALLED): pyproject.toml uv.lock $(UV)
	@echo "installing into .venv (the first time this takes a minute)" >&2
	@$(UV) sync --locked --python '$(PYTHON)'
	@touch $@

$(UV):
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or newer is needed; '$(PYTHON)' is not: install it," \
	        "or name it with make PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	}
	@'$(PYTHON)' -m venv .tools/uv-$(UV_VERSION) || { \
	    echo "'$(PYTHON)' has no venv: install it (Debian, Ubuntu: apt install python3-venv)" >&2; \
	    exit 1; \
	}
	@.tools/uv-$(UV_VERSION)/bin/python -m pip install --quiet --disable-pip-version-check \
	    'uv==$(UV_VERSION)'
