"""House rules that a linter does not know: sizes, first sentences, marks of unfinished work, traces of a machine."""

import ast
import re

import pytest
from source import (
    CODE,
    DAEMON,
    OURS,
    PLUGINS,
    ROOT,
    functions,
    identifiers,
    is_kernel,
    nodes,
    python_files,
    short,
    text_files,
    tree,
)

MOST_LINES = 400
MOST_FUNCTION_LINES = 60
SPREAD_OUT = {"daemon/tickcast/engine/core/bars.py:fold"}  # ARCHITECTURE.md, Kernels, says why it is one function
BANNED_NAMES = {"utils", "helpers", "manager", "base", "common", "misc"}
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)) + r")\b")
REGISTRIES = ("pypi" + ".org", "pythonhosted" + ".org", "--index" + "-url", "--find" + "-links", "npmjs" + ".")
HOME_PATH = re.compile(r"(?<![\w.~])/(home|root|Users)/\w")


def test_every_module_opens_with_a_docstring():
    bare = [short(path) for path in python_files(*CODE) if tree(path).body and not ast.get_docstring(tree(path))]
    assert not bare


def test_no_file_and_no_function_is_too_long():
    long = [short(path) for path in python_files(*CODE) if len(path.read_text().splitlines()) > MOST_LINES]
    long += [
        f"{short(path)}:{function.name}"
        for path in python_files(*CODE)
        for function in functions(path)
        if function.end_lineno - function.lineno >= MOST_FUNCTION_LINES
    ]
    assert set(long) == SPREAD_OUT


MOST_IN_A_ROW = 6  # arguments without a name
AS_MANY_AS_THERE_ARE = {"add_row", "pack_into"}  # the cells of a table, the fields of a format


def test_no_call_has_many_arguments_without_names():
    """But in kernels and of kernels, which know no names."""
    kernels = {function.name for path in python_files(*OURS) for function in functions(path) if is_kernel(function)}
    long = []
    for path in python_files(*OURS):
        inside = {id(node) for function in functions(path) if is_kernel(function) for node in ast.walk(function)}
        for node in nodes(path):
            if not isinstance(node, ast.Call) or id(node) in inside:
                continue
            if sum(not isinstance(given, ast.Starred) for given in node.args) > MOST_IN_A_ROW:
                called = ast.unparse(node.func).rpartition(".")[2]
                if called not in kernels | AS_MANY_AS_THERE_ARE:
                    long.append(f"{short(path)}:{node.lineno} {called}")
    assert not long, "\n" + "\n".join(long)


TWO_MEANINGS = {"Kind", "Feed"}  # of before; none may join them


def test_no_class_name_has_two_meanings():
    names = [node.name for path in python_files(*OURS) for node in nodes(path) if isinstance(node, ast.ClassDef)]
    assert {name for name in names if names.count(name) > 1} == TWO_MEANINGS


def test_no_file_is_named_after_nothing():
    vague = [short(path) for path in python_files(*CODE) if BANNED_NAMES & set(path.stem.split("_"))]
    assert not vague


def test_no_file_holds_marks_of_unfinished_work():
    assert not [short(path) for path in text_files() if UNFINISHED.search(path.read_text(encoding="utf-8"))]


def test_no_file_names_a_package_registry_or_a_path_of_one_machine():
    traces = []
    for path in text_files():
        text = path.read_text(encoding="utf-8")
        if HOME_PATH.search(text) or f"{ROOT.parent}/" in text or any(name in text for name in REGISTRIES):
            traces.append(short(path))
    assert not traces


def test_every_requirement_is_pinned_with_a_hash():
    for path in (ROOT / "requirements").glob("*.txt"):
        blocks = re.split(r"\n(?=\S)", path.read_text())
        pinned = [block for block in blocks if re.match(r"[A-Za-z0-9]", block)]
        assert pinned, path.name
        assert not [block for block in pinned if "==" not in block or "--hash=sha256:" not in block], path.name


def covered_kernels(kernels, wrappers, named):
    """Names of the kernels that tests run on purpose.

    A kernel is, when a test names it or a Python function that calls it; a private one also when such a kernel calls
    it. `kernels` and `wrappers` map a function's name to the identifiers in its body.
    """
    covered = {name for name in kernels if name in named}
    covered |= {name for wrapper, used in wrappers.items() if wrapper in named for name in used if name in kernels}
    while True:
        private = {name for known in covered for name in kernels[known] if name in kernels and name.startswith("_")}
        if private <= covered:
            return covered
        covered |= private


def test_every_kernel_is_called_by_name_in_some_test():
    tests = [identifiers(tree(path)) for path in python_files(ROOT / "tests") if "meta" not in path.parts]
    untested = []
    for path in python_files(DAEMON, PLUGINS):
        kernels, wrappers = {}, {}
        for function in functions(path):
            (kernels if is_kernel(function) else wrappers)[function.name] = identifiers(function)
        named = set().union(*(names for names in tests if path.stem in names))
        untested += [
            f"{short(path)}:{name}" for name in sorted(set(kernels) - covered_kernels(kernels, wrappers, named))
        ]
    assert not untested, "\n" + "\n".join(untested)


@pytest.mark.parametrize(
    ("named", "covered"),
    [
        (set(), set()),
        ({"fold"}, {"fold", "_step"}),
        ({"close_bars"}, {"fold", "_step"}),
        ({"_step"}, {"_step"}),
        ({"run"}, set()),
    ],
)
def test_a_kernel_counts_as_tested_only_by_its_own_name_or_its_direct_wrapper(named, covered):
    kernels = {"fold": {"_step", "inner"}, "_step": set(), "inner": set()}
    wrappers = {"close_bars": {"fold"}, "run": {"close_bars"}}
    assert covered_kernels(kernels, wrappers, named) == covered


def test_every_test_file_has_a_name_of_its_own():
    """pytest imports them by their bare names: two of one name end the whole run at its collection."""
    names = [path.name for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    assert not sorted({name for name in names if names.count(name) > 1})
