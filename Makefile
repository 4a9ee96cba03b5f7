# Needs Python >= 3.11 and make. Everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
TEST_DATABASE_URL ?= postgres://127.0.0.1:5432/postgres

.PHONY: run test check lint test-postgres test-browser protos clean

run: .venv/run
	@$(BIN)/python -m llmapi.launch

test: .venv/dev
	$(BIN)/python -m pytest

check: lint test

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy .
	DJANGO_SETTINGS_MODULE=llmapi.settings_test $(BIN)/python manage.py makemigrations --check --dry-run
	ENV_FILE=/dev/null ALLOWED_HOSTS=chat.example.com OPENAI_API_KEY=sk-example \
	  SECRET_KEY=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(50))') \
	  $(BIN)/python manage.py check --deploy --fail-level WARNING
	$(BIN)/python -m protos.generate --check

test-postgres: .venv/dev
	TEST_DATABASE_URL=$(TEST_DATABASE_URL) $(BIN)/python -m pytest

# In real Chromium, which is not a Python package: on Debian it is installed here.
test-browser: .venv/dev
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	  { apt-get update -qq && apt-get install -y -qq chromium; } >/dev/null 2>&1 || \
	  { echo "Chromium is missing; install it, then run make test-browser again."; exit 1; }
	@# Playwright runs an event loop in the thread of the tests, in which Django then sees no database.
	DJANGO_ALLOW_ASYNC_UNSAFE=true $(BIN)/python -m pytest -m browser clients

protos: .venv/dev
	$(BIN)/python -m protos.generate

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("llmapi needs Python 3.11 or newer; name one with make PYTHON=python3.12.") if sys.version_info < (3, 11) else 0'
	@$(PYTHON) -m venv .venv

.venv/run: .venv/bin/python requirements.txt constraints.txt
	@echo "Installing requirements.txt ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/dev: .venv/bin/python requirements.txt requirements-dev.txt constraints.txt chat/tests/sdk/package-lock.json
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-dev.txt
	@cd chat/tests/sdk && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --silent --no-fund --no-audit
	@touch $@
