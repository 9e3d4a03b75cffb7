"""Online bias correction: by how much the points of a model were off of late, kept where its widths are kept.

What is counted is the model's own point, before it was corrected. The median of its errors is taken as far as it is
surely none by chance: a market without a lasting error gets none. A point that is last value says nothing of where the
price goes, and is never corrected. State changes at marks alone, as that of the widths does.
"""

import numpy as np

from tickcast.compiled import inlined_njit, lean_njit
from tickcast.engine.core.uncertainty import between, count_score, fold_in, is_warm, kept_at, quantile

SURE = 1.0  # standard errors, were all symbols one: fewer correct nothing, many by nearly all of the error
MOST_CORRECTED = 3.0  # one-bar moves, times the root of the step


@inlined_njit
def note_point(conformal, cell, j, median, point, truth):  # type: ignore[no-untyped-def]
    """A label has arrived: how far the model's own point was off."""
    error = truth - point
    if point != 0.0 and error == error:
        count_score(conformal.pending, cell, j, median, error)


@lean_njit
def adapt_points(conformal, first, end, median, horizons, memory, per_bar):  # type: ignore[no-untyped-def]
    """At a mark of the cells first .. end, before the widths adapt, which take away how many labels came."""
    for cell in range(first, end):
        for j in range(len(horizons)):
            n = conformal.arrived[cell, j]
            if n > 0.0:
                weight = 1.0 if per_bar else n
                fold_in(conformal, cell, j, median, kept_at(memory, horizons[j], weight), weight / n)
                conformal.move[cell, j, median] = _sure_error(conformal.histogram[cell, j, median], horizons[j])


@lean_njit
def _sure_error(histogram, horizon):  # type: ignore[no-untyped-def]
    """The median error, less what of it may be chance. Of labels whose moves overlap, as many tell as blocks would."""
    labels = histogram.sum()
    if not is_warm(labels, horizon):
        return 0.0
    middle, away = quantile(histogram, 0.5), 0.5 * SURE * np.sqrt(horizon / labels)
    unsure = abs(middle - quantile(histogram, 0.5 - away if middle > 0.0 else 0.5 + away))
    if abs(middle) <= unsure:
        return 0.0
    limit = MOST_CORRECTED * np.sqrt(horizon)
    return min(max(middle * (1.0 - (unsure / middle) ** 2), -limit), limit)


@lean_njit
def correct(move, cell, horizons, median, raw, i):  # type: ignore[no-untyped-def]
    """Shift all quantiles of raw[i] [H, Q], between scored horizons by what lies between. Whether any was."""
    j, corrected = 0, False
    for h in range(raw.shape[1]):
        j, after, part = between(horizons, h, j)
        low = move[cell, j, median]
        error = low + part * (move[cell, after, median] - low)
        if error != 0.0 and raw[i, h, median] != 0.0:
            corrected = True
            for q in range(raw.shape[2]):
                raw[i, h, q] += error
    return corrected
