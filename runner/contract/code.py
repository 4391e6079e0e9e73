"""The code of a task: the source files that its results depend on, found without executing any of them."""

import ast
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from runner.contract.source import Source, find_module, follow_name, is_library, read_source


def collect_sources(home: Source) -> dict[str, Source]:
    """A module and all that its code may use of the same package, transitively, by module name.

    For a module in no package these are the modules and packages in its folder, unless libraries are installed there.
    A module is used if it is imported, anywhere in a file, or defines a name that is; one that only re-exports the
    name is not. Modules that are executed on the way, such as a parent package's `__init__`, count if they do something
    when they are imported, beyond imports and definitions.
    """
    is_local = _local_rule(home)
    executed = _close([home], lambda source: _list_executed(source, is_local))
    active = [source for source in executed.values() if source.tree and _has_effects(source.tree.body)]
    return _close([home, *active], lambda source: _list_used(source, is_local))


def _local_rule(home: Source) -> Callable[[str], bool]:
    """Whether a module, given by name, is one whose changes are changes of the task in `home`."""
    top = home.name.partition(".")[0]
    folder = home.path.parent.resolve()
    if home.package or is_library(folder):
        return lambda name: name.partition(".")[0] == top
    is_beside = cache(lambda name: _is_in_folder(name, folder))
    return lambda name: is_beside(name.partition(".")[0])


def _is_in_folder(top: str, folder: Path) -> bool:
    spec = find_module(top)
    if spec is None:
        return False
    places = list(spec.submodule_search_locations or [spec.origin or ""])
    return any(Path(place).resolve().parent == folder for place in places)


def _close(roots: Iterable[Source], neighbours: Callable[[Source], Iterable[str]]) -> dict[str, Source]:
    found = {source.name: source for source in roots}
    queue = list(found.values())
    while queue:
        for name in neighbours(queue.pop()):
            if name not in found and (source := read_source(name)):
                found[name] = source
                queue.append(source)
    return found


def _list_executed(source: Source, is_local: Callable[[str], bool]) -> Iterator[str]:
    """The local modules that are executed before or with a module: its parents, and those that it imports."""
    yield from filter(is_local, _parents(source.name))
    for statement in source.imports:
        if isinstance(statement, ast.ImportFrom):
            base = source.name_base(statement)
            names = [base, *(f"{base}.{alias.name}" for alias in statement.names)]
        else:
            names = [alias.name for alias in statement.names]
        yield from filter(is_local, names)


def _list_used(source: Source, is_local: Callable[[str], bool]) -> Iterator[str]:
    """The local modules whose code a module can reach by the names that it imports."""
    for statement in source.imports:
        for alias in statement.names:
            if isinstance(statement, ast.Import):
                names = [alias.name, *(() if alias.asname else _parents(alias.name))]
                yield from filter(is_local, names)
            elif is_local(base := source.name_base(statement)):
                yield from _find_used(base, alias.name, is_local)


def _find_used(base: str, name: str, is_local: Callable[[str], bool]) -> Iterator[str]:
    """The modules that `from base import name` gives access to: the one that defines the name, or a submodule."""
    source = read_source(base)
    if source is None or name not in source.bindings:
        yield f"{base}.{name}" if find_module(f"{base}.{name}") else base
        return
    definition = follow_name(source, name)
    module = definition.imported_module
    yield module if module and is_local(module) else definition.source.name


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _has_effects(statements: Iterable[ast.stmt]) -> bool:
    """Whether statements at the top of a module do more than to import and to define."""
    return any(_has_effect(statement) for statement in statements)


def _has_effect(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(value=value):
            return not isinstance(value, ast.Constant)
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return False
        case ast.If(body=body, orelse=orelse):
            return _has_effects([*body, *orelse])
        case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=final):
            return _has_effects([*body, *(s for handler in handlers for s in handler.body), *orelse, *final])
        case ast.Assign(targets=targets):
            return not all(isinstance(target, ast.Name | ast.Tuple | ast.List) for target in targets)
        case ast.AnnAssign(target=target) | ast.AugAssign(target=target):
            return not isinstance(target, ast.Name)
    return isinstance(statement, ast.For | ast.While | ast.With | ast.Delete | ast.Match)
