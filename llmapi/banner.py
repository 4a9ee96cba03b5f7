"""What `make run` prints when the server is ready: one line a thing."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from llmapi import defaults, local_model


def banner(env: Mapping[str, str], base: str, *, provider: str, trial: str | None, password: str | None) -> str:
    """Return what is printed when the server is ready. `trial` says how fast the trial model is, if it answers."""
    base = address(env, base)
    source = urlsplit(env.get("OPENAI_BASE_URL") or "https://api.openai.com/v1")
    model = f"{env.get('OPENAI_MODEL') or defaults.OPENAI_MODEL} from {source.hostname}, which {provider}"
    if trial:
        size = "a trial model of 135M parameters on this machine"
        hint = "It answers whatever model a client names; set OPENAI_API_KEY for OpenAI's."
        model = f"{local_model.NAME}, {size} ({trial})\n           {hint}"
    token = env.get("CLIENT_API_TOKEN") or ""
    shown = token or "<make one: .venv/bin/python manage.py create_client_token NAME>"
    change = ".venv/bin/python manage.py changepassword admin"
    login = f"admin / {password}   (shown only once)" if password else f"(new password: {change})"
    return f"""
llmapi is ready.
  Model    {model}
  Chat     {base}/{f"#token={token}" if token else ""}
  Docs     {base}/docs
  Admin    {base}/admin/   {login}
  Metrics  {base}/metrics

Try it:
  curl -s {base}/v1/chat/completions \\
    -H 'Authorization: Bearer {shown}' -H 'Content-Type: application/json' \\
    -d '{{"messages": [{{"role": "user", "content": "Say hello in one sentence."}}]}}'

Ctrl-C or make stop stops it.
"""


def address(env: Mapping[str, str], base: str) -> str:
    """Return where clients find the server: behind a proxy where it answers to no name of this machine."""
    hosts = [host.strip() for host in env.get("ALLOWED_HOSTS", "").split(",") if host.strip()]
    if hosts and "127.0.0.1" not in hosts:
        base = base.replace("127.0.0.1", "localhost") if "localhost" in hosts else f"https://{hosts[0].lstrip('.')}"
    return base + env.get("SCRIPT_NAME", "")
