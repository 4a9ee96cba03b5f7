"""A server that fails where a prompt tells it to, in ways that no request can bring about."""

import threading
from runpy import run_path
from typing import Any

import gevent

original = run_path("gunicorn.conf.py")
globals().update(original)


def post_worker_init(worker: Any) -> None:
    from chat.turns import lifecycle, settling
    from chat.upstream.replies import Completion, Reply

    completion, message_rows = Reply.completion, settling.message_rows

    def fail(reply: Reply) -> Completion:
        prompt = str(reply.call.body["messages"])
        if "fail-in-view" in prompt:
            raise ValueError(prompt)
        if "fail-in-thread" in prompt:
            threading.Thread(target=int, args=(prompt,), daemon=True).start()
            gevent.spawn(int, prompt)
        return completion(reply)

    def with_bad_roles(kept: Any) -> Any:
        rows: Any = message_rows(kept)
        for row in rows:
            if "fail-in-database" in row["content"]:
                row["role"] = "nobody"
        return rows

    Reply.completion = fail  # type: ignore[assignment, method-assign]
    settling.message_rows = with_bad_roles
    lifecycle.PAID_SECONDS = 0
    original["post_worker_init"](worker)
