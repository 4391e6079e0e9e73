"""The command `seedbed`: all commands under one name, their versions, and the completion of shells."""

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module, resources
from typing import NoReturn

from runner.distributions import describe_clash
from runner.errors import InvalidInputError
from runner.output import run_command

SHELLS = ("bash", "zsh", "fish")
STUDY_COMMANDS = ("compare", "export", "race", "replay", "studies")
"""Commands whose arguments are folders of studies."""


@dataclass(frozen=True)
class Command:
    """A command of its own, `python -m MODULE`, with a line about it."""

    module: str
    summary: str


COMMANDS = {
    "run": Command("runner", "run a study: a task, its values, and what is swept"),
    "compare": Command("runner.compare", "compare studies across their seeds"),
    "studies": Command("runner.studies", "list, verify and keep studies"),
    "replay": Command("runner.replay", "execute runs once more, compare them with the table, save them"),
    "race": Command("runner.race", "give seeds to the points that may still be the best"),
    "export": Command("runner.export", "write a study for other tools"),
    "port": Command("tasks.porting", "port a Linen model or checkpoint to NNX, or back"),
}

USAGE = """Usage: seedbed COMMAND [ARGUMENTS]
       seedbed [FLAGS] [KEY=VALUE ...]         the same as seedbed run

Commands:
{commands}
  completion  print the completion of bash, zsh or fish

Options:
  -h, --help  this text; `seedbed COMMAND --help` has that of a command
  --version   the versions of Seedbed and of what results depend on

Each command is also a module: `python -m runner` is `seedbed run`,
`python -m runner.compare` is `seedbed compare`, and so on.

Completion:
  bash        eval "$(seedbed completion bash)"       in ~/.bashrc
  zsh         eval "$(seedbed completion zsh)"        in ~/.zshrc
  fish        seedbed completion fish | source        in config.fish

Examples:
  seedbed run task=mixed_train lr=0.1
  seedbed run -m lr=0.01,0.1 'seed=range(0,100)' study=lr_scan
  seedbed compare outputs/lr_scan
  seedbed studies

Environment:
  NO_COLOR    no colours on a terminal; off a terminal there are none
  COLUMNS     the width of tables, by default that of the terminal

Exit status: 0, 1 after a failure, 2 after a usage error, 130 and 143 after
Ctrl-C and SIGTERM."""


def main() -> None:
    """Runs the command. Exit status 2 for a command that does not exist, else that of the command."""
    arguments = sys.argv[1:]
    first = arguments[0] if arguments else "--help"
    own: dict[str, Callable[[], None]] = {
        "-h": _print_help,
        "--help": _print_help,
        "--version": _print_version,
        "completion": lambda: _print_completion(arguments[1:]),
        "complete": lambda: _print_candidates(arguments[1:]),
    }
    if first in own:
        run_command(own[first])
    elif first in COMMANDS:
        _start(COMMANDS[first], first, arguments[1:])
    elif first.startswith(("-", "+", "~")) or "=" in first:
        _start(COMMANDS["run"], "run", arguments)
    else:
        run_command(lambda: _refuse(first))


def _start(command: Command, name: str, arguments: Sequence[str]) -> None:
    sys.argv[:] = [f"seedbed {name}", *arguments]
    status = import_module(f"{command.module}.__main__" if _is_package(command) else command.module).main()
    if status:
        sys.exit(status)


def _is_package(command: Command) -> bool:
    return command.module in ("runner", "tasks.porting")


def _refuse(name: str) -> NoReturn:
    nearest = get_close_matches(name, COMMANDS, n=1)
    question = f"; did you mean {nearest[0]!r}?" if nearest else ";"
    raise InvalidInputError(f"there is no command {name!r}{question} there are: {', '.join(COMMANDS)}, completion")


def _print_help() -> None:
    width = max(map(len, [*COMMANDS, "completion"]))
    lines = (f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    print(USAGE.format(commands="\n".join(lines)))


def _print_version() -> None:
    from runner.config.arguments import describe_versions

    print(describe_versions())
    if line := describe_clash():
        print(line)


def _print_completion(arguments: Sequence[str]) -> None:
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        raise InvalidInputError(f"completion takes one of {', '.join(SHELLS)}, got {' '.join(arguments) or 'nothing'}")
    print((resources.files("runner") / "completion" / f"seedbed.{arguments[0]}").read_text(), end="")


def _print_candidates(arguments: Sequence[str]) -> None:
    print("\n".join(complete_line(arguments[0] if arguments else "")))


def complete_line(line: str) -> list[str]:
    """The candidates for the last word of an unfinished command line, which begins with the name of the program.

    There are none where the line before it has an error.
    """
    from runner.config.completion import complete_call, complete_study

    _, *words = _split(line) or [""]
    word = "" if not words or line[-1:].isspace() else words.pop()
    if not words and "=" not in word:
        own = [name for name in (*COMMANDS, "completion") if name.startswith(word)]
        if own or not word:
            return own
    try:
        match words:
            case ["completion"]:
                return [shell for shell in SHELLS if shell.startswith(word)]
            case [name, *_] if name in STUDY_COMMANDS:
                return complete_study(word)
            case ["run", *rest]:
                return complete_call(rest, word)
            case [name, *_] if name in COMMANDS:
                return []
        return complete_call(words, word)
    except (Exception, SystemExit):  # of Hydra, about what stands before; a shell shows nothing then
        return []


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quote is still open
        return line.split()


if __name__ == "__main__":
    main()
