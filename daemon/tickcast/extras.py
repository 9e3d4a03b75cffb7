"""Which extra brings a package that not every installation has: serving needs none of them. It imports none."""

from tickcast.errors import MissingPackage

REPLAY, TRAIN = "replay", "train"
EXTRA_OF = {
    "polars": REPLAY, "cmaes": TRAIN, "onnx": TRAIN, "onnxscript": TRAIN, "optuna": TRAIN, "scipy": TRAIN,
    "sklearn": TRAIN, "torch": TRAIN,
}  # fmt: skip


def missing_package(error: ModuleNotFoundError) -> MissingPackage | None:
    """What to say of an import that failed; None where the module belongs to no extra, so that something is broken."""
    name = (error.name or "").partition(".")[0]
    if name not in EXTRA_OF:
        return None
    also = f", or 'tickcast[{TRAIN}]' to fit models, too" if EXTRA_OF[name] == REPLAY else ""
    return MissingPackage(f"this needs the package {name}", remedy=f"pip install 'tickcast[{EXTRA_OF[name]}]'{also}")
