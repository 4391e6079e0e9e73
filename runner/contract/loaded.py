"""Whether the modules that a process has imported are those that their files have now: a notebook lives long."""

import ast
import inspect
import sys
import types
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from typing import Any

from runner.contract.code import collect_sources
from runner.contract.held import is_held
from runner.contract.object_code import list_parts, walk_code
from runner.contract.source import Source, find_definition
from runner.contract.task import Task
from runner.errors import InvalidInputError


def check_loaded(task: Task) -> None:
    """Raises InvalidInputError for code of a task that was imported before its file was changed.

    The study would record the code of the file, and execute the other one.
    """
    definition = None if is_held(task.target) else find_definition(task.target)
    if definition is None:
        return
    for source in collect_sources(definition.source).values():
        if _is_stale(source):
            raise InvalidInputError(
                f"task {task.name!r}: {source.path} was changed after this process had imported it; "
                f"importlib.reload({source.name}), or restart the kernel"
            )


def _is_stale(source: Source) -> bool:
    module = sys.modules.get(source.name)
    if module is None or source.tree is None:
        return False
    if type(getattr(module.__spec__, "loader", None)) is not SourceFileLoader:  # pytest compiles its modules otherwise
        return False
    compiled = compile(source.content, str(source.path), "exec", dont_inherit=True)
    codes = {code.co_qualname: code for code in walk_code(compiled)}
    functions = dict(_list_functions(module))
    is_changed = any(not _is_same(function, codes.get(name)) for name, function in functions.items())
    return is_changed or any(getattr(module, name, value) != value for name, value in _list_constants(source))


def _list_functions(module: types.ModuleType) -> Iterator[tuple[str, types.FunctionType]]:
    """The functions and the methods that a module defines, by their qualified names."""
    owned = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    classes = [value for value in owned if isinstance(value, type)]
    for value in [*owned, *(member for each in classes for member in vars(each).values())]:
        function = inspect.unwrap(value) if callable(value) else value
        if isinstance(function, types.FunctionType) and function.__code__.co_filename == module.__file__:
            yield function.__code__.co_qualname, function


def _is_same(function: types.FunctionType, code: types.CodeType | None) -> bool:
    if code is None:
        return False
    one, other = ([list_parts(each) for each in walk_code(whole)] for whole in (function.__code__, code))
    return repr(one) == repr(other)


def _list_constants(source: Source) -> Iterator[tuple[str, Any]]:
    """The names that a module binds once, to a number, a text or a tuple of them."""
    assert source.tree is not None
    for statement in source.tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if _is_literal(value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if _is_literal(value):
                pass
            case _:
                continue
        if len(source.bindings[name]) == 1:
            yield name, ast.literal_eval(value)


def _is_literal(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple):
        return all(map(_is_literal, node.elts))
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.operand, ast.Constant) and isinstance(node.op, ast.USub)
    return isinstance(node, ast.Constant)
