# The server alone: no build tools, no pip, and nothing that it has to write to.
# deploy/try_image.py executes these lines without a container engine.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /app
# Without pip in it, which the last stage does not need.
RUN python3 -m venv --without-pip /opt/venv
COPY requirements.lock requirements-otel.lock ./
RUN python3 -m pip --python /opt/venv/bin/python install --no-cache-dir --only-binary :all: --require-hashes -r requirements.lock -r requirements-otel.lock
COPY manage.py gunicorn.conf.py ./
COPY analytics analytics
COPY chat chat
COPY clients clients
COPY deploy/start.py deploy/start.py
COPY llmapi llmapi
COPY protos protos
# The last stage cannot write them. Static files are served from where they are.
RUN python3 -m compileall -q /app /opt/venv

FROM python:3.11.14-slim-bookworm
RUN python3 -m pip uninstall -q -y --root-user-action ignore pip setuptools wheel
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin llmapi
# SQLite's file, where DATABASE_URL names no server: mount a volume here.
RUN install -d -o llmapi -g llmapi -m 700 /data
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ENV DATABASE_URL=sqlite:////data/db.sqlite3 PORT=8080
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "deploy/start.py", "--healthy"]
CMD ["python", "deploy/start.py"]
