"""The tree of errors: what is drawn is what is there, each class has one fate, each code is one class's."""

import ast
import re
from pathlib import Path

import pytest

from tickcast import errors
from tickcast.ui.documents.reference import error_types

FATES = {"Refusal", "Skipped", "Waiting", "Fatal"}
ALL = list(error_types())


def drawn():
    """Class -> parent, as the docstring of errors.py draws it."""
    parents, path = {}, []
    for line in errors.__doc__.splitlines():
        match = re.match(r"^([│ ├└─]*)([A-Z]\w+)(?:\s{2,}|$)", line)
        if match:
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            parents[match[2]] = path[depth - 1] if depth else None
    return parents


def test_the_drawn_tree_is_the_tree_of_classes():
    classes = {kind.__name__: kind.__base__.__name__ for kind in ALL}
    assert drawn() == {"TickcastError": None, **classes}


@pytest.mark.slow
def test_no_error_is_defined_anywhere_else():
    names = {"TickcastError", *(kind.__name__ for kind in ALL)}
    root = Path(errors.__file__).parent
    strays = [
        f"{path.relative_to(root)}: {node.name}"
        for path in root.rglob("*.py")
        if path != Path(errors.__file__)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and names & {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    ]
    assert not strays


def test_every_class_says_in_the_drawing_what_it_stands_for():
    for kind in ALL:
        line = next(line for line in errors.__doc__.splitlines() if re.search(rf"─ {kind.__name__}\s", line))
        assert len(line.split(kind.__name__, 1)[1].strip()) > 10


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_exactly_one_fate(kind):
    assert len({parent.__name__ for parent in kind.__mro__} & FATES) == 1


def test_the_fates_are_the_children_of_the_root():
    assert {kind.__name__ for kind in errors.TickcastError.__subclasses__()} == FATES


def test_every_code_is_unique_and_machine_readable():
    codes = [kind.code for kind in (errors.TickcastError, *ALL)]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


def test_refusals_and_a_fence_have_exit_codes_of_their_own_and_all_else_is_restarted():
    for kind in ALL:
        special = {errors.Refusal: errors.EXIT_REFUSED, errors.Fenced: errors.EXIT_FENCED}
        expected = next((code for base, code in special.items() if issubclass(kind, base)), errors.EXIT_DIED)
        assert kind.exit_code == expected


def test_the_message_carries_its_remedy():
    assert str(errors.BadStore("held by 12", remedy="stop it")) == "held by 12 (stop it)"
    assert str(errors.BadStore("held by 12")) == "held by 12"


def test_every_reason_fits_the_kernels_array_of_counts():
    assert all(0 <= reason < errors.REASON_COUNT for reason in errors.Reason)


def test_every_quality_flag_is_one_bit_of_a_byte():
    assert all(flag.value & (flag.value - 1) == 0 and 0 < flag.value < 256 for flag in errors.Quality)
