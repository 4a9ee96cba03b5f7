# Needs Python >= 3.11 and make. Everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
CLIENTS := $(patsubst chat/tests/clients/%/,.venv-clients/%/installed,$(dir $(wildcard \
  chat/tests/clients/*/requirements.txt chat/tests/clients/*/package-lock.json)))
TEST_DATABASE_URL ?= postgres://127.0.0.1:5432/postgres

# The JavaScript SDK, and the tools that read the OpenAPI description: tests run both.
NODE_LOCKS := chat/tests/sdk/package-lock.json chat/tests/openapi/package-lock.json

# What tests run of the system, and Debian's packages of it.
PROGRAMS := chromium promtool nginx caddy systemd-analyze ip
PACKAGES := chromium prometheus nginx-light caddy systemd iproute2

# One lock for Linux, macOS and Windows, and for each Python from 3.11 on.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes

.DEFAULT_GOAL := help
.PHONY: help run stop test check lint test-postgres tools test-browser test-clients test-observe test-deploy try-image bench protos lock audit sbom clean

## List these targets
help:
	@awk '/^## / {text = substr($$0, 4); next} \
	  text && /^[a-z-]+:/ {sub(/:.*/, ""); printf "make %-14s %s\n", $$0, text} {text = ""}' $(firstword $(MAKEFILE_LIST))

## Start the server on http://127.0.0.1:8080; the first run installs what it needs and writes .env
run: .venv/run
	@$(BIN)/python -m llmapi.launch

## Stop what make run of this folder started, also from another terminal
stop:
	@$(firstword $(wildcard $(BIN)/python) $(PYTHON)) -m llmapi.stop

## Run the tests on SQLite
test: .venv/dev
	$(BIN)/python -m pytest

## Run lint and test
check: lint test

## Check formatting, lint, types, the floors of imports, packages, migrations, deployment settings and generated code
lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy .
	$(BIN)/lint-imports
	$(BIN)/python -m llmapi.supply_chain check
	$(BIN)/python -m llmapi.supply_chain audit
	DJANGO_SETTINGS_MODULE=llmapi.settings_test $(BIN)/python manage.py makemigrations --check --dry-run
	ENV_FILE=/dev/null ALLOWED_HOSTS=chat.example.com OPENAI_API_KEY=sk-example \
	  SECRET_KEY=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(50))') \
	  $(BIN)/python manage.py check --deploy --fail-level WARNING
	$(BIN)/python -m protos.generate --check

## Run the tests on PostgreSQL (TEST_DATABASE_URL)
test-postgres: .venv/dev
	TEST_DATABASE_URL=$(TEST_DATABASE_URL) $(BIN)/python -m pytest

## Install what the next four run of the system (on Debian)
tools:
	@which $(PROGRAMS) >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends $(PACKAGES); } >/dev/null 2>&1

# Chromium is no Python package. On Debian this target installs it.
## Test the chat page in Chromium
test-browser: .venv/dev
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	  { apt-get update -qq && apt-get install -y -qq chromium; } >/dev/null 2>&1 || \
	  { echo "Chromium is missing; install it, then run make test-browser again."; exit 1; }
	@# Playwright runs an event loop in the tests' thread. Django refuses database queries there without this.
	DJANGO_ALLOW_ASYNC_UNSAFE=true $(BIN)/python -m pytest -m browser clients

## Run real client libraries against a server, each in an environment of its own
test-clients: .venv/dev
	@$(MAKE) --no-print-directory -j 4 $(CLIENTS)
	$(BIN)/python -m pytest -m clients chat/tests/test_clients.py chat/tests/test_sdks.py

# Prometheus is no Python package either. On Debian this target installs it.
## Run a real Prometheus on the dashboard and the alerts
test-observe: .venv/dev
	@command -v promtool >/dev/null || \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus; } >/dev/null 2>&1 || \
	  { echo "Prometheus is missing; install it, then run make test-observe again."; exit 1; }
	$(BIN)/python -m pytest -m observe llmapi/tests/test_prometheus.py

# They have mounts and a network of their own, so that files of the system stay as they are. It needs root.
## Try the files of deploy/ with real nginx, Caddy and systemd
test-deploy: .venv/dev
	@command -v nginx >/dev/null && command -v caddy >/dev/null && command -v systemd-analyze >/dev/null && \
	  command -v ip >/dev/null || \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light caddy systemd iproute2; } >/dev/null 2>&1 || \
	  { echo "nginx, Caddy, systemd or iproute2 is missing; install them, then run make test-deploy again."; exit 1; }
	MOUNTS_OF_ALL=$$(readlink /proc/self/ns/mnt) unshare --mount --net $(BIN)/python -m pytest -n 0 -m deploy deploy/tests

## Execute the steps of the Dockerfile without a container engine, and try the result; as root, on Debian
try-image: .venv/dev
	@command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq debootstrap; } >/dev/null 2>&1 || \
	  { echo "debootstrap is missing; install it, then run make try-image again."; exit 1; }
	unshare --mount $(BIN)/python -m deploy.try_image

# BENCH holds its options, for example BENCH="--rounds 1 --cases one,many". docs/speed.md has them.
## Measure speed and memory beside LiteLLM, Portkey, a plain FastAPI service and the floor
bench: .venv/dev
	@$(BIN)/python -m bench.peers $(BENCH)

## Generate code after a change to protos/chat.proto
protos: .venv/dev
	$(BIN)/python -m protos.generate

# Pins that still fit stay. LOCK=--upgrade takes the newest of what the requirements need in turn.
## Renew the locks and docs/licences.md after a change to requirements.txt or pyproject.toml
lock: export UV_CUSTOM_COMPILE_COMMAND = make lock
lock: .venv/dev
	@$(COMPILE) $(LOCK) requirements.txt -o requirements.lock
	@$(COMPILE) $(LOCK) -c requirements.lock --group otel -o requirements-otel.lock
	@$(COMPILE) $(LOCK) -c requirements.lock -c requirements-otel.lock requirements.txt --group otel --group dev -o requirements-dev.lock
	@$(COMPILE) $(LOCK) --no-deps --group trial -o requirements-trial.lock
	@$(MAKE) --no-print-directory .venv/dev
	@$(BIN)/python -m llmapi.supply_chain licences

## Ask whether versions in the locks have known vulnerabilities; fails where that cannot be asked
audit: .venv/dev
	@$(BIN)/python -m llmapi.supply_chain audit --strict

## Write sbom.json, the bill of materials (CycloneDX) of what runs in production
sbom: .venv/dev
	@$(BIN)/python -m venv --clear --without-pip .venv-sbom
	@$(BIN)/python -m pip --python .venv-sbom/bin/python install -q --disable-pip-version-check \
	  --require-hashes --no-compile -r requirements.lock
	@$(BIN)/cyclonedx-py environment --output-reproducible --output-file sbom.json .venv-sbom/bin/python
	@rm -rf .venv-sbom

## Delete the environments and the caches
clean:
	rm -rf .venv .venv-clients .venv-sbom sbom.json .hypothesis .mypy_cache .pytest_cache .ruff_cache

# An environment is made anew where its making, or installing into it, was cut off, and where its Python has gone.
$(shell [ -e .venv/made ] && [ -x $(BIN)/python ] || rm -f .venv/made .venv/run .venv/dev)

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit("llmapi needs Python 3.11 or newer; name one with make PYTHON=python3.12.") if sys.version_info < (3, 11) else 0'
	@$(PYTHON) -m venv --clear .venv
	@touch $@

# Without .venv/made, as long as pip works: it stays away where pip is killed or interrupted, and comes back where pip itself fails.
INSTALL = rm -f .venv/made; trap 'exit 130' INT; \
  $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r $(1); \
  status=$$?; touch .venv/made; exit $$status

.venv/run: requirements.lock | .venv/made
	@echo "Installing $< ..."
	@$(call INSTALL,$<)
	@touch $@

.venv/dev: requirements-dev.lock $(NODE_LOCKS) | .venv/made
	@$(call INSTALL,$<)
	@for lock in $(NODE_LOCKS); do \
	  (cd $$(dirname $$lock) && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --silent --no-fund --no-audit --ignore-scripts) || exit 1; done
	@touch $@

# Everything is pinned, so nothing is resolved; and only what a test imports is compiled.
.venv-clients/%/installed: chat/tests/clients/%/requirements.txt | .venv/made
	@$(BIN)/python -m venv --without-pip .venv-clients/$*
	@$(BIN)/python -m pip --python .venv-clients/$*/bin/python install -q --disable-pip-version-check \
	  --no-deps --no-compile -r $<
	@touch $@

.venv-clients/%/installed: chat/tests/clients/%/package-lock.json .venv/dev
	@cd $(<D) && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --silent --no-fund --no-audit
	@mkdir -p $(@D)
	@touch $@
