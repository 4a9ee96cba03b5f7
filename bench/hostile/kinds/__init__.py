"""The kinds of hostile clients. A subclass of `Kind` in a module of this package is found by itself."""

import importlib
import pkgutil

from bench.hostile.kinds.base import KINDS, Kind

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["KINDS", "Kind", "names"]


def names() -> list[str]:
    """Return `kind/source` for each kind and each source that it comes from: `half-heads/none`."""
    return [f"{kind.name}/{source}" for kind in KINDS.values() for source in kind.sources]
