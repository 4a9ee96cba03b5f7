# Needs Python >= 3.11 and make. Everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
TEST_DATABASE_URL ?= postgres://127.0.0.1:5432/postgres

.PHONY: run test check lint test-postgres protos clean

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
