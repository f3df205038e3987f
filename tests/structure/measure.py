"""The house, measured from its source: files a room, circles, foreign writes, fields a class, depth of inheritance.

Nothing is imported; every module is read as a syntax tree, so that any tree can be measured, one of an old commit too.

* A *circle* is a set of modules each of which names the next; imports under TYPE_CHECKING and inside functions count.
* A *foreign write* is an assignment to a field of an object whose class stands in another module: `x.field = ...` where
  `x` is not `self`, was not made in the same function (a data object that its one maker fills), and no class of this
  module has such a field, while a class of another module has.
* *Fields* are a class's `__slots__`, its annotated names where it is a dataclass, and else what its methods assign to
  `self`; those of our own bases included.
* *Depth* is the number of our own classes in the longest line of bases, the class itself included; a Protocol, and a
  base from a library, count nothing.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

# The rooms from the lowest floor to the highest: a module may name what stands before its own room, and its own room.
ORDER = (
    "proxy.__init__",
    "proxy.smtp.lines",
    "proxy.smtp.faults",
    "proxy.smtp.reply",
    "proxy.smtp.session",
    "proxy.smtp",
    "proxy.settings",
    "proxy.net.observer",
    "proxy.net.waiting",
    "proxy.net.tls",
    "proxy.net.relay",
    "proxy.net.going_out.names",
    "proxy.net.going_out",
    "proxy.net.coming_in",
    "proxy.net.carrier",
    "proxy.net",
    "proxy.daemon.log",
    "proxy.daemon.admin.figures",
    "proxy.daemon.admin",
    "proxy.daemon",
    "proxy.daemon.workers",
    "proxy.daemon.service",
    "proxy.cli_arguments",
    "proxy.tools.children",
    "proxy.tools.dialogue",
    "proxy.tools.repair",
    "proxy.tools.replay",
    "proxy.tools.simulate",
    "proxy.tools.probe",
    "proxy.tools.files",
    "proxy.tools",
    "proxy.cli",
    "proxy.__main__",
)


@dataclass
class Class:
    """One class of a module."""

    name: str
    module: str
    bases: tuple[str, ...]
    fields: frozenset[str]


@dataclass
class Module:
    """One file: its dotted name, its tree, its classes by name."""

    name: str
    tree: ast.Module
    lines: int
    classes: dict[str, Class] = field(default_factory=dict)

    @property
    def room(self) -> str:
        """The package that the module lies in."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True)
class ForeignWrite:
    """`module` writes `what` in this line."""

    module: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.what}"


class House:
    """All modules of the package `proxy` below a folder."""

    def __init__(self, top: Path) -> None:
        self.modules: dict[str, Module] = {}
        for path in sorted((top / "proxy").rglob("*.py")):
            parts = path.relative_to(top).with_suffix("").parts
            text = path.read_text()
            module = Module(".".join(parts), ast.parse(text), text.count("\n"))
            for node in ast.walk(module.tree):
                if isinstance(node, ast.ClassDef):
                    module.classes[node.name] = _read_class(node, module.name)
            self.modules[module.name] = module
        self._by_name: dict[str, list[Class]] = defaultdict(list)
        for module in self.modules.values():
            for name, one in module.classes.items():
                self._by_name[name].append(one)

    @cached_property
    def files_a_room(self) -> Counter[str]:
        """How many modules lie in each package, its `__init__` and `__main__` not counted."""
        return Counter(one.room for one in self.modules.values() if not one.name.endswith(("__init__", "__main__")))

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """Which of our own modules each module names, wherever in it."""
        return {name: set(self._imported(module)) - {name} for name, module in self.modules.items()}

    def _imported(self, module: Module) -> Iterator[str]:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                names = [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [f"{node.module}.{one.name}" for one in node.names]
            else:
                continue
            for name in names:
                found = name if name in self.modules else name.rpartition(".")[0]
                if found in self.modules:
                    yield found
                elif f"{found}.__init__" in self.modules:
                    yield f"{found}.__init__"

    @cached_property
    def climbs(self) -> list[str]:
        """Every import of a room that stands higher in `ORDER`, or in no place of it."""
        found = []
        for name, others in self.imports.items():
            own = _floor(name)
            found += [f"{name} names {other}" for other in others if own < 0 or _floor(other) > own]
        return sorted(found)

    @cached_property
    def circles(self) -> list[list[str]]:
        """Every set of modules that reach each other (Tarjan's strongly connected components), largest first."""
        index: dict[str, int] = {}
        low: dict[str, int] = {}
        stack: list[str] = []
        found: list[list[str]] = []

        def visit(name: str) -> None:
            index[name] = low[name] = len(index)
            stack.append(name)
            for other in self.imports[name]:
                if other not in index:
                    visit(other)
                    low[name] = min(low[name], low[other])
                elif other in stack:
                    low[name] = min(low[name], index[other])
            if low[name] == index[name]:
                circle: list[str] = []
                while not circle or circle[-1] != name:
                    circle.append(stack.pop())
                if len(circle) > 1:
                    found.append(sorted(circle))

        for name in self.modules:
            if name not in index:
                visit(name)
        return sorted(found, key=lambda circle: -len(circle))

    def fields(self, one: Class) -> frozenset[str]:
        """The fields of a class and of our own bases."""
        return one.fields.union(*(self.fields(base) for base in self._bases(one)))

    def depth(self, one: Class) -> int:
        """How many of our own classes stand above each other in this one."""
        if "Protocol" in one.bases:
            return 0
        return 1 + max((self.depth(base) for base in self._bases(one)), default=0)

    def _bases(self, one: Class) -> list[Class]:
        found = []
        for name in one.bases:
            here = self.modules[one.module].classes.get(name)
            candidates = [here] if here is not None and here is not one else self._by_name.get(name, [])
            found += [base for base in candidates[:1] if base is not one]
        return found

    @cached_property
    def foreign_writes(self) -> list[ForeignWrite]:
        """Every place that writes a field of an object from another module."""
        owners: dict[str, set[str]] = defaultdict(set)
        for module in self.modules.values():
            for one in module.classes.values():
                for name in one.fields:
                    owners[name].add(module.name)
        found: list[ForeignWrite] = []
        for module in self.modules.values():
            for function in ast.walk(module.tree):
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                    found += _writes(function, module, owners)
        return sorted(set(found), key=lambda one: (one.module, one.line))


def _read_class(node: ast.ClassDef, module: str) -> Class:
    bases = tuple(
        base.id if isinstance(base, ast.Name) else base.attr if isinstance(base, ast.Attribute) else ""
        for base in (one.value if isinstance(one, ast.Subscript) else one for one in node.bases)
    )
    fields: set[str] = set()
    slots: set[str] = set()
    annotated = any("dataclass" in ast.unparse(one) for one in node.decorator_list) or "NamedTuple" in bases
    for part in node.body:
        if isinstance(part, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__slots__" for t in part.targets):
            slots |= {one.value for one in ast.walk(part.value) if isinstance(one, ast.Constant)}
        elif annotated and isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            fields.add(part.target.id)
        elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            fields |= {
                target.attr
                for target in _targets(part)
                if isinstance(target.value, ast.Name) and target.value.id == "self"
            }
    return Class(node.name, module, bases, frozenset(slots or fields))


def _targets(function: ast.AST) -> Iterator[ast.Attribute]:
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node


def _writes(
    function: ast.FunctionDef | ast.AsyncFunctionDef, module: Module, owners: dict[str, set[str]]
) -> Iterator[ForeignWrite]:
    made = {
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id[:1].isupper()
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for target in _targets(function):
        if isinstance(target.value, ast.Name) and target.value.id in {"self", "cls", *made}:
            continue
        where = owners.get(target.attr, set())
        if where and module.name not in where:
            yield ForeignWrite(module.name, target.lineno, ast.unparse(target))


def _floor(name: str) -> int:
    """The place in `ORDER` of the most particular room that the module is in; -1 for none."""
    rooms = [room for room in ORDER if name == room or name.startswith(room + ".")]
    return ORDER.index(max(rooms, key=len)) if rooms else -1
