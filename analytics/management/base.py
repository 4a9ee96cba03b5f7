"""What our commands have in common: a group in `manage.py help`, and examples in their own --help."""

from argparse import HelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandParser, DjangoHelpFormatter

EXAMPLES = "Examples:\n"


class ExamplesFormatter(DjangoHelpFormatter):
    """Wraps the description, and leaves the lines of the examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(EXAMPLES) else super()._fill_text(text, width, indent)


class OperatorCommand(BaseCommand):
    # The first sentence of `help` is its line in `manage.py help`.
    group: str
    # Arguments, as they are written after the command's name.
    examples: tuple[str, ...]

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        lines = (f"  manage.py {subcommand} {arguments}".rstrip() for arguments in self.examples)
        formatter: type[HelpFormatter] = ExamplesFormatter
        parser = super().create_parser(prog_name, subcommand, epilog=EXAMPLES + "\n".join(lines), **kwargs)
        parser.formatter_class = formatter
        return parser
