"""Reads the code of the product: who imports whom, types included, and who changes whose attributes."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef
OWN = {"self", "cls"}


# ---- who imports whom


def all_imports(tree: ast.AST) -> list[str]:
    """Return what a module imports, for type checkers too: `a.b` or `a.b.Name`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def import_graph(modules: dict[str, ast.AST]) -> dict[str, set[str]]:
    """Return which of the modules each module imports.

    A package's own `__init__` is left out: it gathers its modules, which is no circle with them.
    """
    graph = {}
    for module, tree in modules.items():
        imported = {next((known for known in _prefixes(name) if known in modules), "") for name in all_imports(tree)}
        graph[module] = imported - {"", module, module.rpartition(".")[0]}
    return graph


def _prefixes(name: str) -> Iterator[str]:
    """Iterate over a name and its packages, the longest first."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Return the groups of modules that import each other, directly or by way of others."""
    reached = {module: _reached(graph, module) for module in graph}
    groups = {
        frozenset(other for other in reached[module] if module in reached[other])
        for module in graph
        if module in reached[module]
    }
    return sorted((set(group) for group in groups), key=sorted)


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    to_visit = list(graph[start])
    while to_visit:
        module = to_visit.pop()
        if module not in reached:
            reached.add(module)
            to_visit += graph.get(module, ())
    return reached


# ---- attributes


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Iterate over the functions of a module, each with its name and that of its class; inner ones are part of it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, Function):
            yield f"{prefix}{node.name}", node
        elif not isinstance(node, ast.Lambda):
            yield from functions(node, prefix)


def writes(node: ast.AST) -> Iterator[ast.Attribute]:
    """Iterate over the attributes that are assigned, changed in place (`+=`) or deleted."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, (ast.Store, ast.Del)):
            yield inner


def foreign_writes(tree: ast.Module) -> dict[str, list[str]]:
    """Return, by function, the assignments to attributes of objects that the function's object does not own.

    Its own are `self` and `cls`, an object that the function itself has just made (`x = Name(...)`), and a module.
    """
    modules = {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    found = defaultdict(list)
    for name, function in functions(tree):
        own = OWN | modules | made_here(function)
        for write in writes(function):
            if not (isinstance(write.value, ast.Name) and write.value.id in own):
                found[name].append(ast.unparse(write))
    return dict(found)


def made_here(function: Function) -> set[str]:
    """Return the local names that only ever stand for objects which the function makes: `x = Name(...)`."""
    made, other = set(), {argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and _makes(node.value):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            made |= names
            continue
        if isinstance(node, ast.AnnAssign) and node.value is not None and _makes(node.value):
            made |= {node.target.id} if isinstance(node.target, ast.Name) else set()
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in filter(None, targets):
            other |= {name.id for name in ast.walk(target) if isinstance(name, ast.Name) and _stored(name)}
    return made - other


def _stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def _makes(value: ast.expr) -> bool:
    """Whether an expression makes an object: it calls a class, which begins with a capital, or `cls`."""
    if not isinstance(value, ast.Call):
        return False
    called = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
    return called == "cls" or called.lstrip("_")[:1].isupper()


def setters(tree: ast.Module) -> list[str]:
    """Return the methods that do nothing but put an argument into an attribute of their object."""
    return [
        name
        for name, function in functions(tree)
        if "." in name and not function.name.startswith("__") and _is_setter(function)
    ]


def _is_setter(function: Function) -> bool:
    arguments = {argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)}
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return bool(body) and all(
        isinstance(line, ast.Assign)
        and isinstance(line.value, ast.Name)
        and line.value.id in arguments
        and all(isinstance(target, ast.Attribute) for target in line.targets)
        for line in body
    )


def changing_attributes(trees: list[ast.Module]) -> dict[str, set[str]]:
    """Return the attributes of each class that are assigned after its objects were made.

    Those that others assign count for the class that alone has an attribute of that name.
    """
    declared: dict[str, set[str]] = {}
    changing: dict[str, set[str]] = {}
    foreign: set[str] = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                own = {
                    (function.name, write.attr)
                    for _, function in functions(node)
                    for write in writes(function)
                    if isinstance(write.value, ast.Name) and write.value.id in OWN
                }
                fields = {
                    line.target.id
                    for line in node.body
                    if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
                }
                declared[node.name] = fields | {attribute for _, attribute in own}
                changing[node.name] = {attribute for name, attribute in own if name != "__init__"}
        for written in foreign_writes(tree).values():
            foreign |= {text.rpartition(".")[2] for text in written}
    for attribute in foreign:
        owners = [name for name, attributes in declared.items() if attribute in attributes]
        if len(owners) == 1:
            changing[owners[0]].add(attribute)
    return changing
