"""What the doctor says of one thing: a line with what, why, and what to do."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta

# So long before something ends, it is said.
NOTICE = timedelta(days=30)


@dataclass(frozen=True)
class Finding:
    what: str
    why: str
    # Empty where nothing is to be done.
    todo: str = ""

    @property
    def is_fine(self) -> bool:
        return not self.todo

    def __str__(self) -> str:
        return f"{'ok   ' if self.is_fine else 'WRONG'}  {self.what}: {self.why}. {self.todo}".rstrip()

    def as_json(self) -> dict[str, str | bool]:
        return {"ok": self.is_fine, **asdict(self)}


Examination = Callable[[], Iterator[Finding]]
