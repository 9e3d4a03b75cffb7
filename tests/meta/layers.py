"""The table of who may import whom, and what no layer may do, as functions from a syntax tree to complaints."""

import ast
from collections.abc import Iterator

ROOMS = {"codec", "core", "inference", "registry", "control", "edges"}
MAY_IMPORT = {"trainer": {"core", "codec", "inference"}, "control": {"registry"}}
ROOTS = ("tickcast", "tickcast_desk", "tickcast_plugins", "tickcast_trainer")
TOP = {"__main__", "cli", "testing"}  # may import anything; nothing but tests and plugin authors imports them
PURE = {"codec", "core"}

PACKAGES = {  # a heavy or stateful package -> the only layers that may import it
    "duckdb": {"registry"},
    "torch": {"trainer", "inference", "plugins"},
    "optuna": {"trainer"},
    "sklearn": {"plugins", "trainer"},
    "scipy": {"plugins"},
    "polars": {"app", "desk", "edges", "trainer", "registry"},
    "onnxruntime": {"inference"},
    "aiokafka": {"edges"},
    "aiomqtt": {"edges"},
    "structlog": {"app", "desk", "edges", "top"},
    "rich": {"desk", "top"},
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


def layer_of(module: str) -> str:
    """`tickcast.core.bars` -> core; files directly in tickcast/ are the vocabulary, but for TOP."""
    parts = module.split(".")
    if parts[0] in ROOTS[1:]:
        return parts[0].removeprefix("tickcast_")
    if len(parts) > 1 and (parts[1] in ROOMS or parts[1] == "app"):
        return parts[1]
    return "top" if len(parts) > 1 and parts[1] in TOP else "vocabulary"


def allowed(layer: str) -> set[str]:
    """The layers that a layer may import, its own among them."""
    above = {
        "top": {"desk", "trainer", "app", "vocabulary", "top", *ROOMS},
        "desk": {"desk", "trainer", "app", "vocabulary", *ROOMS},
        "app": {"app", "vocabulary", *ROOMS},
        "vocabulary": {"vocabulary"},
        "plugins": {"plugins", "vocabulary"},
    }
    return above.get(layer) or {layer, "vocabulary", *MAY_IMPORT.get(layer, ())}


def imports(tree: ast.AST) -> Iterator[str]:
    """Absolute names of the imported modules; `from tickcast.core import bars` gives tickcast.core.bars."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level
            else:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def complaints(module: str, tree: ast.Module) -> list[str]:
    """All that is wrong with the imports and calls of one module."""
    layer = layer_of(module)
    return [f"{module} ({layer}) {what}" for what in (*_bad_imports(layer, tree), *_bad_calls(module, layer, tree))]


def _bad_imports(layer: str, tree: ast.Module) -> Iterator[str]:
    for name in imports(tree):
        package = name.split(".")[0]
        if name.startswith("."):
            yield "has a relative import"
        elif package in ROOTS:
            if layer_of(name) not in allowed(layer):
                yield f"imports {name} ({layer_of(name)})"
        elif package in PACKAGES and layer not in PACKAGES[package]:
            yield f"imports {package}, which only {', '.join(sorted(PACKAGES[package]))} may"
        elif package in NEVER_IMPORTED:
            yield f"imports {package}"
        elif layer in PURE and package in IMPURE_MODULES:
            yield f"imports {package}: this layer does no input, output, waiting or logging"


def _bad_calls(module: str, layer: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in NEVER_CALLED and module != "tickcast.clock":
            yield f"calls {name}"
        if layer in PURE and name in ("open", "print", "input"):
            yield f"calls {name}"
        if any(word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in node.keywords):
            yield "allows pickle"
