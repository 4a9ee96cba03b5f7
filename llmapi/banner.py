"""What `make run` prints when the server is ready."""

from collections.abc import Mapping

from llmapi import local_model


def banner(env: Mapping[str, str], port: int, *, is_local: bool, password: str | None) -> str:
    base = f"http://127.0.0.1:{port}"
    source = env.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    model = f"{env.get('OPENAI_MODEL') or 'gpt-4o-mini'} from {source}"
    if is_local:
        model = f"{local_model.NAME}, a trial model of 135M parameters on this machine; set OPENAI_API_KEY for OpenAI's"
    token = env.get("CLIENT_API_TOKEN") or "<make one: .venv/bin/python manage.py create_client_token NAME>"
    lines = [
        "",
        "llmapi is ready.",
        f"  Model    {model}",
        f"  Chat     {base}/",
        f"  Docs     {base}/docs",
        f"  Admin    {base}/admin/",
        f"  Metrics  {base}/metrics",
    ]
    if password:
        lines.append(f"  Login    admin / {password}   (shown only once)")
    lines += [
        "",
        "Try it:",
        f"  curl -s {base}/v1/chat/completions \\",
        f"    -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' \\",
        """    -d '{"messages": [{"role": "user", "content": "Say hello in one sentence."}]}'""",
        "",
        "Ctrl-C or make stop stops it.",
        "",
    ]
    return "\n".join(lines)
