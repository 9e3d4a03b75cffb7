"""The names of all settings, and what a wrong one may have meant, in words. It judges no value."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from pydantic import BaseModel, ValidationError

PREFIX = "TICKCAST_"


def names(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted, in the order of the code; what stands in a table that the user names is left out."""
    for key, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from names(kind, f"{prefix}{key}.")
        else:
            yield prefix + key


def hint(wrong: str, root: type[BaseModel]) -> str:
    """The known name, or section, that is nearest to it, as the end of a message; empty where none is near."""
    section, _, key = wrong.rpartition(".")
    known = [*names(root)]
    within = {name.rpartition(".")[2]: name for name in known if section and name.startswith(section + ".")}
    near = [within[one] for one in get_close_matches(key, within, 1)]
    near += [name for name in known if section and name.endswith(f".{key}")]  # in another section
    near += [] if within else get_close_matches(wrong, [*known, *root.model_fields], 1)
    return f", did you mean {near[0]}?" if near else ""


def misspelt(environ: Mapping[str, str], root: type[BaseModel]) -> list[str]:
    """What is wrong with each variable that looks like ours and names no setting, such as one with a single `_`."""
    wanted = {name.replace(".", "_"): name for name in names(root)}
    found = []
    for variable in sorted(environ):
        if variable.upper().startswith(PREFIX) and "__" not in variable:
            key = variable[len(PREFIX) :].lower()
            name = wanted.get(key) or next(iter(get_close_matches(key, wanted, 1)), "")
            name = wanted.get(name, name)
            right = f": did you mean {PREFIX}{name.replace('.', '__').upper()}?" if name else ""
            found.append(f"{variable}: names no setting{right} [environment]")
    return found


def explain(error: ValidationError, origins: Mapping[str, str], root: type[BaseModel]) -> Iterator[str]:
    """What is wrong with each value, with where it came from."""
    for item in error.errors():
        dotted = ".".join(str(part) for part in item["loc"])
        unknown, said = item["type"] == "extra_forbidden", item["msg"].removeprefix("Value error, ")
        what = "unknown setting" + hint(dotted, root) if unknown else said
        where = f" [{origins[dotted]}]" if dotted in origins else ""
        yield f"{dotted}: {what}{where}" if dotted else what
