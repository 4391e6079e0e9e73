"""The parameters of a function as its source declares them, where that is certain without executing its module."""

import ast
import builtins
import collections.abc
import inspect
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from runner.contract.source import Source, find_alias, find_definition

MISSING = inspect.Parameter.empty

ARRAYS = ("jax.Array", "jax.numpy.ndarray", "jax.typing.ArrayLike", "numpy.ndarray")
"""Annotations of array parameters; `numpy.ndarray` stands for all of them, so that JAX is not needed."""

_OWNERS = {"builtins": builtins, "typing": typing, "collections.abc": collections.abc}
"""Modules whose types are looked up, instead of being imported on behalf of an annotation."""


@dataclass(frozen=True)
class Declared:
    """A parameter as a signature declares it; `types` are the plain types of its annotation, None if it has none."""

    name: str
    types: tuple[type, ...] | None
    default: Any = MISSING


class UncertainError(Exception):
    """Only the imported function can tell."""


def read_declaration(target: str) -> tuple[Declared, ...] | None:
    """The parameters of the function at a dotted path, read from its source; None where only an import can tell.

    That is so for all but a plain `def` at the top of a module, with literals as defaults and annotations of plain
    types, arrays, and those of `typing` and `collections.abc` that name one.
    """
    definition = find_definition(target)
    statement = definition.statement if definition else None
    if definition is None or not isinstance(statement, ast.FunctionDef) or not _is_plain(statement):
        return None
    try:
        _check_names(statement, definition.source)
        return tuple(
            Declared(argument.arg, _read_annotation(argument.annotation, definition.source), default)
            for argument, default in _pair_defaults(statement.args)
        )
    except UncertainError:
        return None


def plain_types(hint: Any) -> tuple[type, ...]:
    """The plain types of an annotation, those of a union separately; none if it names none."""
    if hint is typing.Any:
        return ()
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return tuple(dict.fromkeys(member for arm in typing.get_args(hint) for member in plain_types(arm)))
    plain = typing.get_origin(hint) or hint
    return (plain,) if isinstance(plain, type) else ()


def _is_plain(function: ast.FunctionDef) -> bool:
    is_generic = bool(getattr(function, "type_params", ()))  # since Python 3.12
    arguments = function.args
    is_open = bool(arguments.posonlyargs or arguments.vararg or arguments.kwarg)
    return not (function.decorator_list or is_generic or is_open)


def _pair_defaults(arguments: ast.arguments) -> Iterator[tuple[ast.arg, Any]]:
    defaults = [None] * (len(arguments.args) - len(arguments.defaults)) + arguments.defaults
    for argument, default in zip(
        [*arguments.args, *arguments.kwonlyargs], [*defaults, *arguments.kw_defaults], strict=True
    ):
        yield argument, MISSING if default is None else _read_literal(default)


def _read_literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError) as error:
        raise UncertainError from error


def _check_names(function: ast.FunctionDef, source: Source) -> None:
    """An unknown name in one annotation, that of the result included, makes Python give up on all of them."""
    arguments = [*function.args.args, *function.args.kwonlyargs]
    for annotation in [*(argument.annotation for argument in arguments), function.returns]:
        nodes = list(ast.walk(_unquote(annotation))) if annotation else []
        for node in nodes:
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            is_unknown = (
                isinstance(node, ast.Name) and not hasattr(builtins, node.id) and source.find_binding(node.id) is None
            )
            if is_text or is_unknown:
                raise UncertainError


def _unquote(annotation: ast.expr) -> ast.expr:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            return ast.parse(annotation.value, mode="eval").body
        except SyntaxError as error:
            raise UncertainError from error
    return annotation


def _read_annotation(annotation: ast.expr | None, source: Source) -> tuple[type, ...] | None:
    return None if annotation is None else _read_types(_unquote(annotation), source)


def _read_types(node: ast.expr, source: Source) -> tuple[type, ...]:
    """What `plain_types` gives for the value of an annotation, with `numpy.ndarray` for every kind of array."""
    match node:
        case ast.Constant(value=None):
            return (type(None),)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _join([left, right], source)
        case ast.Subscript(value=base, slice=arguments):
            return _read_subscript(_name_path(base, source), arguments, source)
        case ast.Name() | ast.Attribute():
            return _find_types(_name_path(node, source))
    raise UncertainError


def _read_subscript(path: str, arguments: ast.expr, source: Source) -> tuple[type, ...]:
    if path == "typing.Union":
        return _join(arguments.elts if isinstance(arguments, ast.Tuple) else [arguments], source)
    if path == "typing.Optional":
        return _join([arguments, ast.Constant(None)], source)
    return _find_types(path)


def _join(arms: list[ast.expr], source: Source) -> tuple[type, ...]:
    return tuple(dict.fromkeys(member for arm in arms for member in _read_types(arm, source)))


def _name_path(node: ast.expr, source: Source) -> str:
    """The dotted path that an expression of names refers to."""
    if isinstance(node, ast.Attribute):
        return f"{_name_path(node.value, source)}.{node.attr}"
    if not isinstance(node, ast.Name):
        raise UncertainError
    match source.find_binding(node.id):
        case ast.Import() as statement:
            alias = find_alias(statement, node.id)
            return alias.name if alias.asname else node.id
        case ast.ImportFrom() as statement:
            return f"{source.name_base(statement)}.{find_alias(statement, node.id).name}"
        case None if node.id not in source.bindings:
            return f"builtins.{node.id}"
    raise UncertainError


def _find_types(path: str) -> tuple[type, ...]:
    module, _, name = path.rpartition(".")
    if path in ARRAYS:
        return (np.ndarray,)
    if path == "typing.Any":
        return ()
    found = plain_types(getattr(_OWNERS[module], name, None)) if module in _OWNERS else ()
    if not found:
        raise UncertainError
    return found
