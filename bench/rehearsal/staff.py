"""A member of staff who stays logged in, and looks at the dashboard all the time."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from bench.rehearsal.proxy import HOST, Proxy

PASSWORD = "of-the-rehearsal-and-of-nothing-else"  # noqa: S105


@contextmanager
def watching(proxy: Proxy) -> Iterator[Counter[str]]:
    """Log in, and count what the dashboard answers until the block ends. A page that failed is asked for again."""
    seen: Counter[str] = Counter()
    stopped = threading.Event()
    with httpx.Client(verify=proxy.certificate, base_url=proxy.url, headers={"Host": HOST}, timeout=60) as browser:
        log_in(browser)

        def look() -> None:
            while not stopped.wait(1):
                try:
                    status = browser.get("/admin/").status_code
                except httpx.HTTPError:
                    status = 502
                seen["logged out" if status == 302 else "seen" if status == 200 else "failed for a moment"] += 1

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield seen
        finally:
            stopped.set()
            thread.join()


def log_in(browser: httpx.Client) -> None:
    page = f"https://{HOST}/admin/login/"
    browser.get("/admin/login/")
    form = {"username": "admin", "password": PASSWORD, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
    answer = browser.post("/admin/login/", data=form, headers={"Referer": page, "Origin": f"https://{HOST}"})
    if answer.status_code != 302:
        raise SystemExit(f"Staff could not log in: {answer.status_code}.")
