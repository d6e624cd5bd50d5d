"""Imports go down: the room table of docs/architecture.md, enforced on the syntax tree."""

import ast
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import border0

ROOT = Path(border0.__file__).parent
# Lower rooms first; rooms on one level do not import each other.
LEVELS = (
    ("errors", "privatefile", "_build_info", "__init__"),
    ("secrets", "tables", "keys", "deadline"),
    ("prefixes", "statements", "trust"),
    ("wireguard", "netstack", "policy", "audit"),
    ("paths", "relay", "proxies", "dns"),
    ("control",),
    ("connector", "node"),
    ("processes",),
    ("cli",),
)
PURE = (
    "statements",
    "wireguard",
    "netstack",
    "policy",
    "audit",
    "paths",
    "relay",
    "proxies",
    "dns",
)
IO_MODULES = {
    "twisted", "autobahn", "treq", "zope", "OpenSSL", "service_identity",
    "socket", "select", "asyncio", "threading", "subprocess", "os", "pathlib", "io",
    "time", "random", "secrets", "tempfile", "signal", "fcntl", "ssl",
}  # fmt: skip
LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}


def room_of(path: Path) -> str:
    part = path.relative_to(ROOT).parts[0]
    return part.removesuffix(".py")


def is_adapter(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return "adapters" in parts or parts[-1] in ("adapter.py", "worker.py")


def imports(path: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            found.append((node.lineno, module))
            if module == "border0":
                found += [(node.lineno, f"border0.{alias.name}") for alias in node.names]
    return found


class Layers(SynchronousTestCase):
    def sources(self) -> list[Path]:
        paths = [path for path in ROOT.rglob("*.py") if path.name != "_built.py"]
        self.assertTrue(paths)
        return paths

    def test_every_room_has_a_level(self) -> None:
        unknown = {room_of(path) for path in self.sources()} - set(LEVEL)
        self.assertEqual(unknown, set())

    def test_imports_go_down(self) -> None:
        breaches = []
        for path in self.sources():
            here = room_of(path)
            for line, module in imports(path):
                parts = module.split(".")
                if parts[0] != "border0" or len(parts) < 2 or parts[1] not in LEVEL:
                    continue
                there = parts[1]
                if there != here and LEVEL[there] >= LEVEL[here] and here != "__init__":
                    breaches.append(f"{path}:{line}: {here} imports {there}")
        self.assertEqual(breaches, [])

    def test_pure_cores_do_no_io(self) -> None:
        breaches = []
        for path in self.sources():
            if room_of(path) not in PURE or is_adapter(path):
                continue
            for line, module in imports(path):
                if module.split(".")[0] in IO_MODULES:
                    breaches.append(f"{path}:{line}: imports {module}")
        self.assertEqual(breaches, [])

    def test_no_cycles(self) -> None:
        graph = {}
        for path in self.sources():
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            name = ".".join(["border0", *(parts[:-1] if parts[-1] == "__init__" else parts)])
            graph[name] = path
        edges = {}
        for name, path in graph.items():
            edges[name] = set()
            for node in ast.parse(path.read_text("utf-8")).body:  # top level: run at import time
                if not isinstance(node, ast.ImportFrom | ast.Import):
                    continue
                names = (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or "", *(f"{node.module}.{a.name}" for a in node.names)]
                )
                edges[name] |= {other for other in names if other in graph and other != name}
        done: set[str] = set()

        def visit(name: str, trail: tuple[str, ...]) -> None:
            self.assertNotIn(name, trail, f"import cycle: {' -> '.join((*trail, name))}")
            if name in done:
                return
            for other in sorted(edges[name]):
                visit(other, (*trail, name))
            done.add(name)

        for name in sorted(graph):
            visit(name, ())

    def test_files_stay_small(self) -> None:
        long = {
            str(path.relative_to(ROOT)): count
            for path in self.sources()
            if (count := len(path.read_text("utf-8").splitlines())) > 600
        }
        self.assertEqual(long, {})
