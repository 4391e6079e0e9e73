"""Calls from Python: what the command line does, as a function that returns the study."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

from runner import terminal
from runner.analysis.study import Study
from runner.config.bind import forget_objects
from runner.config.command import Call, Origin, run_application
from runner.config.isolation import isolate_hydra
from runner.config.keywords import format_override, is_swept
from runner.config.launch import Placement
from runner.config.messages import ERRORS, exit_status, explain_error
from runner.config.overrides import quote
from runner.config.settings import FUNCTION, NAMES
from runner.contract.held import HOLDER, is_held, locate_function, name_function
from runner.contract.loaded import check_loaded
from runner.contract.task import load_task
from runner.errors import InvalidInputError, StudyFailedError, StudyInterruptedError
from runner.pipeline import Ran, run_call
from runner.plan.datasets import forget_datasets
from runner.plan.inputs import build_array

PROGRAM = ("python", "-m", "runner")
SHOWN_CHARACTERS = 500
"""Characters of a word of the printed command, which may list a million values."""

ConfigDir = str | PathLike[str]
_turn = threading.Lock()
_thread: list[int] = []
"""The thread whose turn it is: Hydra keeps its state for the whole process."""


def run(
    *overrides: str,
    task: str | Sequence[str] | Callable[..., Any] | None = None,
    sweep: bool | None = None,
    config_dir: ConfigDir | Sequence[ConfigDir] = (),
    quiet: bool = False,
    **values: Any,
) -> Study:
    """Runs a study as `python -m runner` does, prints that command, and returns the study.

    Keywords are parameters of the task, settings such as `study=`, and config groups. A list, a range or an array is
    swept over its members; a tuple is one value that has several members. `overrides` are strings as on the command
    line, of which `sweep=True` makes a sweep (`-m`). `task` is the name of a task, or a Python function, whose code is
    known by its source. `config_dir` has configs of your own. With `quiet` nothing is printed but warnings.

    The study is extended, resumed or refused as by the command. Raises InvalidInputError for usage errors,
    StudyFailedError if runs are left without a result, and KeyboardInterrupt after Ctrl-C, with the command's message;
    what was finished before is in the study's folder, and the same call goes on with it. Calls from several threads
    take turns.

    >>> import runner
    >>> study = runner.run(task="mixed_train", lr=[0.1, 0.2], seed=range(5), study="from_python", quiet=True)
    >>> study.frame.groupby("lr")["loss_after"].count().tolist()
    [5, 5]
    """
    with _take_turn(), terminal.mute() if quiet else nullcontext():
        arguments = _list_arguments(overrides, task, sweep, config_dir, values)
        terminal.print_line(terminal.format_command([*PROGRAM, *_shorten(arguments)]))
        return Study(_run(arguments))


def _list_arguments(
    overrides: Sequence[str], task: Any, sweep: bool | None, config_dir: Any, values: Mapping[str, Any]
) -> list[str]:
    """The arguments of the command that does the same. Raises InvalidInputError for what no command could have."""
    swept = [name for name, value in values.items() if is_swept(name, value)]
    is_sweep = bool(swept) or _is_list(task) if sweep is None else sweep
    if swept and not is_sweep:
        raise InvalidInputError(f"sweep=False, but {swept[0]} has several values; a tuple is one value")
    flags, searched = _list_folders(config_dir)
    selected = _select_task(task)
    prefix = _add_key if callable(task) else _set_key
    keywords = [format_override(name, value, prefix(name)) for name, value in values.items()]
    given = [f"{prefix(_check_override(override))}{override}" for override in overrides]
    return [*flags, *(["-m"] if is_sweep else []), *searched, *selected, *given, *keywords]


def _is_list(task: Any) -> bool:
    return isinstance(task, list | tuple)


def _check_override(override: Any) -> str:
    """The key of an override, with its prefix. Raises InvalidInputError for what is none."""
    if not isinstance(override, str) or override.startswith("-"):
        hint = "flags of the command are keywords here: sweep=True, config_dir=…"
        raise InvalidInputError(f"an override is a text KEY=VALUE, got {override!r}; {hint}")
    return override.partition("=")[0]


def _set_key(_: str) -> str:
    return ""


def _add_key(name: str) -> str:
    """The prefix of a parameter of a function, which no YAML has given a value yet."""
    top = name.partition(".")[0].partition("/")[0]
    if name.startswith(("+", "~")) or top in (*NAMES, "task", "hydra"):
        return ""
    return "++" if "." in name else "+"


def _select_task(task: Any) -> list[str]:
    if task is None:
        return []
    if isinstance(task, str) or _is_list(task):
        return [format_override("task", list(task) if _is_list(task) else task)]
    if not callable(task) or isinstance(task, type):
        raise InvalidInputError(f"task takes the name of a task, a list of names, or a function, got {task!r}")
    target = locate_function(task)
    return [f"task={FUNCTION}", f"task.name={name_function(task)}", f"task._target_={target}"]


def _list_folders(config_dir: Any) -> tuple[list[str], list[str]]:
    """The flag of the first config directory, and the override for the others."""
    is_single = isinstance(config_dir, str | PathLike)
    first, *others = [str(Path(each)) for each in ([config_dir] if is_single else config_dir)] or [""]
    searched = ",".join(quote(f"file://{Path(each).absolute()}") for each in others)
    return ["--config-dir", first] if first else [], [f"hydra.searchpath=[{searched}]"] if others else []


def _shorten(arguments: Sequence[str]) -> list[str]:
    """The arguments as they are printed: very many values are cut, and a function of this process has no path."""
    shown = [
        word.replace(f"={HOLDER}.", "=MODULE.") if word.startswith("task._target_=") else word for word in arguments
    ]
    return [word if len(word) <= SHOWN_CHARACTERS else f"{word[:SHOWN_CHARACTERS]}…" for word in shown]


def _run(arguments: Sequence[str]) -> Path:
    """Runs the call and returns the folder of its study."""
    ran: list[Path] = []

    def execute(path: Path, read_call: Callable[[], Call]) -> Ran:
        done = run_call(path, lambda: _check_code(read_call()))
        ran.append(done.folder.path)
        return done

    _forget_values()
    try:
        with isolate_hydra():
            claimed = run_application(arguments, execute, Origin((*PROGRAM, *arguments), is_guest=True))
    except StudyInterruptedError as error:
        raise KeyboardInterrupt(str(error)) from error
    except ERRORS as error:
        raise _translate(error) from error
    if not ran and claimed is not None:
        return claimed.absolute()  # a launcher has run the study in another process
    if len(set(ran)) != 1:
        raise InvalidInputError(f"{len(set(ran))} studies were run, each in its folder; runner.Study(PATH) reads one")
    return ran[0]


def _check_code(call: Call) -> Call:
    """The call. Raises InvalidInputError if its tasks' code is not that of their files, or not where its shards run."""
    is_elsewhere = call.launcher is not None and call.launcher.placement is not Placement.THIS_PROCESS
    for task in dict.fromkeys(segment.task for segment in call.plan.segments):
        check_loaded(task)
        if is_elsewhere and is_held(task.target):
            raise InvalidInputError(
                f"task {task.name!r} is a function of this process, and the shards run in others; "
                "define it in a module of a file, or leave out hydra.sweeper.shards"
            )
    return call


def _forget_values() -> None:
    """What an earlier call has read may have changed: functions, files, and what a `_target_` builds."""
    for forget in (load_task.cache_clear, build_array.cache_clear, forget_datasets, forget_objects):
        forget()


def _translate(error: Exception) -> Exception:
    """The error with the message that the command would print."""
    kind = InvalidInputError if exit_status(error) == 2 else StudyFailedError
    if isinstance(error, kind) and str(error) == explain_error(error):
        return error
    translated = kind(explain_error(error))
    for line in getattr(error, "__notes__", ()):
        translated.add_note(line)
    return translated


@contextmanager
def _take_turn() -> Iterator[None]:
    """Waits for the calls of other threads. Raises InvalidInputError within a call of the same thread."""
    if threading.get_ident() in _thread:
        raise InvalidInputError("runner.run was called within another runner.run, such as by its task; call it outside")
    if not _turn.acquire(blocking=False):
        terminal.print_warning("runner.run is under way in another thread of this process; this call waits for it")
        _turn.acquire()
    _thread.append(threading.get_ident())
    try:
        yield
    finally:
        _thread.clear()
        _turn.release()
