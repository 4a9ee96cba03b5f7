"""`manage.py help`: our commands first, by what they are for, with a line on each."""

from collections.abc import Iterator

from django.core.management import ManagementUtility, get_commands, load_command_class

from analytics.management.base import OperatorCommand

GROUPS = ("Server", "Backup", "Clients", "Data", "Figures")


class Utility(ManagementUtility):
    def main_help_text(self, commands_only: bool = False) -> str:
        # Without settings there are only Django's commands, and its text says why.
        found = {} if commands_only else own_commands()
        if not found:
            return super().main_help_text(commands_only)
        width = max(map(len, found))
        lines = [f"`{self.prog_name} help COMMAND` explains a command.", ""]
        for group in GROUPS:
            members = sorted(name for name, command in found.items() if command.group == group)
            lines += [group, *(f"  {name:{width}}  {first_sentence(found[name])}" for name in members), ""]
        others = sorted(name for name in get_commands() if name not in found)
        return "\n".join([*lines, "Django's", *wrap(others)])


def own_commands() -> dict[str, OperatorCommand]:
    """Return our commands by their names."""
    loaded = ((name, load_command_class(app, name)) for name, app in get_commands().items() if not is_foreign(app))
    return {name: command for name, command in loaded if isinstance(command, OperatorCommand)}


def is_foreign(app: object) -> bool:
    """Tell whether others wrote the commands of an app. Loading all of them would take long."""
    return str(app).partition(".")[0] not in {"analytics", "chat", "llmapi"}


def first_sentence(command: OperatorCommand) -> str:
    return f"{command.help.partition('. ')[0].rstrip('.')}."


def wrap(names: list[str], width: int = 100) -> Iterator[str]:
    line = " "
    for name in names:
        if len(line) + len(name) > width:
            yield line
            line = " "
        line += f" {name}"
    yield line
