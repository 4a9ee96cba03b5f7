"""How the server that tests share runs: as gunicorn.conf.py says, without the jobs that a process does by itself.

Such a job would write to the database while another test has it.
"""

from runpy import run_path
from typing import Any

original = run_path("gunicorn.conf.py")
globals().update(original)


def post_worker_init(worker: Any) -> None:
    from chat import background

    background.start = lambda: None
    original["post_worker_init"](worker)
