"""The processor is shared: who has much to do lets others run in between."""

import time


def breathe() -> None:
    """Let other requests of this process run."""
    time.sleep(0)
