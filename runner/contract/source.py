"""Modules as their source files: found, parsed and followed without executing any of them."""

import ast
import importlib.util
import pkgutil
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path

Bindings = dict[str, list[ast.AST]]
"""The statements of a module's own scope that bind each name; `*` has the star imports."""

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


@dataclass(frozen=True)
class Source:
    """A module's file; `tree` is None if it is not Python source, or cannot be parsed."""

    name: str
    package: str
    """What relative imports of the module are relative to."""
    content: bytes = field(repr=False)
    path: Path

    @property
    def tree(self) -> ast.Module | None:
        return _parse(self.content) if self.path.suffix == ".py" else None

    @property
    def bindings(self) -> Bindings:
        return _list_bindings(self.tree) if self.tree else {}

    @property
    def imports(self) -> "list[ast.Import | ast.ImportFrom]":
        """All imports, also those within functions, but for those that only a type checker reads."""
        return _list_imports(self.tree) if self.tree else []

    def find_binding(self, name: str) -> ast.AST | None:
        """The one statement that binds a name, if it is executed whenever the module is; None if that is not sure."""
        found = self.bindings.get(name, [])
        if len(found) > 1 and all(_imports_package(statement, name) for statement in found):
            found = found[:1]  # import jax, and import jax.numpy: both bind jax to the same
        is_sure = len(found) == 1 and "*" not in self.bindings and self.tree is not None and found[0] in self.tree.body
        return found[0] if is_sure else None

    def name_base(self, statement: ast.ImportFrom) -> str:
        """The absolute name of the module that a `from … import` names, empty if it is beyond the package."""
        try:
            return importlib.util.resolve_name("." * statement.level + (statement.module or ""), self.package)
        except ImportError:
            return ""


@dataclass(frozen=True)
class Definition:
    """The module that binds what a dotted path names, re-exports followed, and the name there.

    `members` are the rest of the path, such as the name of a method.
    """

    source: Source
    name: str
    members: tuple[str, ...] = ()

    @property
    def statement(self) -> ast.AST | None:
        """The statement that defines it, None if that is not sure."""
        return None if self.members else self.source.find_binding(self.name)

    @property
    def imported_module(self) -> str | None:
        """The module that it is, if it is one that `from … import` has imported."""
        if not isinstance(self.statement, ast.ImportFrom):
            return None
        name = f"{self.source.name_base(self.statement)}.{find_alias(self.statement, self.name).name}"
        return name if find_module(name) else None


def find_module(name: str) -> ModuleSpec | None:
    """Where a module is; nothing is executed, its parent packages neither. None if it is not on the path."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for count in range(1, len(rest) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = _find_submodule(".".join([top, *rest[:count]]), spec.submodule_search_locations)
    return spec


def _find_submodule(name: str, folders: Iterable[str]) -> ModuleSpec | None:
    """What `PathFinder` finds, which needs the parents to be imported if it finds a package without `__init__`."""
    portions: list[str] = []
    for finder in filter(None, map(pkgutil.get_importer, folders)):
        spec = finder.find_spec(name)
        if spec is not None and spec.loader is not None:
            return spec
        portions += (spec.submodule_search_locations or []) if spec else []
    package = ModuleSpec(name, None, is_package=True)
    package.submodule_search_locations = portions
    return package if portions else None


def find_alias(statement: ast.Import | ast.ImportFrom, name: str) -> ast.alias:
    """The part of an import that binds a name."""
    return next(a for a in statement.names if name in (a.asname or a.name, a.asname or a.name.partition(".")[0]))


def split_target(target: str) -> tuple[str, list[str]]:
    """A dotted path as the longest part that is a module, and attributes of it; the module is empty if there is none.

    A colon may separate them, as in entry points: `my_lab:decay`.
    """
    module, colon, attributes = target.partition(":")
    if colon:
        return (module if find_module(module) else ""), attributes.split(".")
    parts = target.split(".")
    count = len(parts)
    while count and find_module(".".join(parts[:count])) is None:
        count -= 1
    return ".".join(parts[:count]), parts[count:]


def find_definition(target: str) -> Definition | None:
    """The definition that a dotted path leads to; None where modules would have to be executed to find it."""
    module, attributes = split_target(target)
    source = read_source(module) if module and attributes else None
    return replace(follow_name(source, attributes[0]), members=tuple(attributes[1:])) if source else None


def read_source(name: str) -> Source | None:
    """The file of a module; None for a built-in module, and for a package that has no `__init__`."""
    spec = find_module(name)
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    path = Path(spec.origin)
    try:
        return Source(name, spec.parent or "", path.read_bytes(), path)
    except OSError:
        return None


def is_library(path: Path) -> bool:
    """Whether a file or a folder belongs to the standard library or to the installed libraries."""
    is_installed = bool({"site-packages", "dist-packages"} & set(path.parts))
    return is_installed or any(path.is_relative_to(folder) for folder in _library_folders())


@lru_cache(maxsize=1)
def _library_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    folders = [Path(paths[name]) for name in ("stdlib", "platstdlib")]
    return (*folders, *(folder.resolve() for folder in folders))


@lru_cache(maxsize=256)
def _parse(content: bytes) -> ast.Module | None:
    try:
        return ast.parse(content)
    except (SyntaxError, ValueError, RecursionError):
        return None


@lru_cache(maxsize=256)
def _list_bindings(tree: ast.Module) -> Bindings:
    bindings: Bindings = {}
    for node in _walk_scope(tree):
        for name in _bound_names(node):
            bindings.setdefault(name, []).append(node)
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            for name in node.names:
                bindings.setdefault(name, []).append(node)
    return bindings


def _imports_package(statement: ast.AST, name: str) -> bool:
    """Whether a statement binds a name to the top of a package, as `import jax.numpy` does."""
    return isinstance(statement, ast.Import) and all(alias.asname != name for alias in statement.names)


def _walk_scope(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes within a node that are evaluated in the same scope."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, _SCOPES):
            yield from _walk_scope(child)


def _bound_names(node: ast.AST) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Import(names=names):
            return [alias.asname or alias.name.partition(".")[0] for alias in names]
        case ast.ImportFrom(names=names):
            return [alias.asname or alias.name for alias in names]
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return [name]
        case ast.Attribute(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):  # such as f.__signature__ = …
            return [name]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case ast.MatchMapping(rest=str(name)):
            return [name]
    return []


def follow_name(source: Source, name: str, seen: frozenset[tuple[str, str]] = frozenset()) -> Definition:
    """Where a name of a module is defined: re-exports by `from … import` are followed as far as they are sure."""
    statement = source.find_binding(name)
    if isinstance(statement, ast.ImportFrom) and (source.name, name) not in seen:
        original = find_alias(statement, name).name
        base = read_source(source.name_base(statement))
        if base and original in base.bindings:
            return follow_name(base, original, seen | {(source.name, name)})
    return Definition(source, name)


@lru_cache(maxsize=256)
def _list_imports(tree: ast.Module) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in _walk_executed(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def _walk_executed(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes within a node, but for those that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        yield child
        if isinstance(child, ast.If) and _names(child.test, "TYPE_CHECKING"):
            for other in child.orelse:
                yield from _walk_executed(other)
        else:
            yield from _walk_executed(child)


def _names(test: ast.expr, name: str) -> bool:
    return (isinstance(test, ast.Name) and test.id == name) or (isinstance(test, ast.Attribute) and test.attr == name)
