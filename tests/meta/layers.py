"""The floors, who may import whom, and what no floor may do, as functions from a syntax tree to complaints."""

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec

FLOORS = {  # -> those that it may import besides itself and the vocabulary
    "engine": set(),
    "io": {"engine"},
    "loop": {"io", "engine"},
    "live": {"loop", "io", "engine"},
    "batch": {"loop", "io", "engine"},
    "ui": {"batch", "live", "loop", "io", "engine"},
}
ABOVE_ALL = {"__main__", "testing"}  # the start, and the kit of plugin authors, which no module of ours imports
ROOTS = ("tickcast", "tickcast_plugins")
PURE = ("tickcast.engine.codec", "tickcast.engine.core")

PACKAGES = {  # a heavy or stateful package -> the only places that may import it
    "duckdb": ("tickcast.io.store",),
    "torch": ("tickcast.batch.train", "tickcast.batch.tune", "tickcast_plugins"),
    "optuna": ("tickcast.batch.tune",),
    "sklearn": ("tickcast.batch", "tickcast_plugins"),
    "scipy": ("tickcast_plugins",),
    "polars": ("tickcast.io", "tickcast.loop", "tickcast.batch", "tickcast.ui"),
    "onnxruntime": ("tickcast.engine.inference",),
    "aiokafka": ("tickcast.io.kafka",),
    "aiomqtt": ("tickcast.io.mqtt",),
    "structlog": ("tickcast.io", "tickcast.loop", "tickcast.live", "tickcast.ui"),
    "rich": ("tickcast.ui",),
}
IMPURE_MODULES = {
    "asyncio", "http", "io", "logging", "os", "pathlib", "queue", "shutil", "signal", "socket", "structlog",
    "subprocess", "tempfile", "threading", "time", "urllib",
}  # fmt: skip
NEVER_IMPORTED = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "random", "uuid"}
NEVER_CALLED = {
    "eval", "exec", "time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.datetime.now",
    "datetime.datetime.utcnow", "date.today", "torch.load", "yaml.load", "np.random.seed", "np.random.rand",
    "np.random.randn", "np.random.normal", "np.random.randint",
}  # fmt: skip
MODULE = re.compile(rf"({'|'.join(ROOTS)})(\.[a-z_]+)+")


def floor_of(module: str) -> str:
    """`tickcast.engine.core.bars` -> engine; modules directly in tickcast/, and the settings, are the vocabulary."""
    parts = module.split(".")
    if parts[0] == "tickcast_plugins":
        return "plugins"
    if len(parts) > 1 and parts[1] in FLOORS:
        return parts[1]
    return "above all" if len(parts) > 1 and parts[1] in ABOVE_ALL else "vocabulary"


def allowed(floor: str) -> set[str]:
    """The floors that a floor may import, its own among them."""
    if floor == "above all":
        return {*FLOORS, "vocabulary"}
    return {floor, "vocabulary", *FLOORS.get(floor, ())}


def imports(tree: ast.AST) -> Iterator[str]:
    """Absolute names of what is imported; `from tickcast.loop import pump` gives tickcast.loop.pump."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level
            else:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def complaints(module: str, tree: ast.Module) -> list[str]:
    """All that is wrong with the imports, calls and texts of one module."""
    wrong = (*_bad_imports(module, tree), *_bad_calls(module, tree), *_named_modules(tree))
    return [f"{module} ({floor_of(module)}) {what}" for what in wrong]


def is_within(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def _bad_imports(module: str, tree: ast.Module) -> Iterator[str]:
    floor = floor_of(module)
    for name in imports(tree):
        package = name.split(".")[0]
        if name.startswith("."):
            yield "has a relative import"
        elif package in ROOTS:
            if floor_of(name) not in allowed(floor):
                yield f"imports {name} ({floor_of(name)})"
        elif package in PACKAGES and not is_within(module, PACKAGES[package]):
            yield f"imports {package}, which only {', '.join(PACKAGES[package])} may"
        elif package in NEVER_IMPORTED:
            yield f"imports {package}"
        elif is_within(module, PURE) and package in IMPURE_MODULES:
            yield f"imports {package}: it does no input, output, waiting or logging"


def _bad_calls(module: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in NEVER_CALLED and module != "tickcast.clock":
            yield f"calls {name}"
        if is_within(module, PURE) and name in ("open", "print", "input"):
            yield f"calls {name}"
        if any(word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in node.keywords):
            yield "allows pickle"


def _named_modules(tree: ast.Module) -> Iterator[str]:
    """An import that no reader of imports would see: what is found by its name is an entry point."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and MODULE.fullmatch(node.value):
            try:
                found = find_spec(node.value)
            except ModuleNotFoundError:
                continue
            if found:
                yield f"names {node.value} in a text"
