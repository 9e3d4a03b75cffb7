"""Whether a model beats last value, in words: as much as the interval of its skill allows to say, and no more."""

from tickcast.ui.pages.page import form


def beside_last_value(
    skill: float | None, low: float | None, high: float | None, *, moments: int, confidence: float, of: str = "skill"
) -> str:
    """One sentence; without an interval there were too few moments to draw one from."""
    if low is None or high is None:
        return f"Too few moments ({moments:,}) to say whether it is better than last value: give more data."
    span = f"{of} {form(skill, '+.1%')}, {form(low, '+.1%')} to {form(high, '+.1%')} at {confidence:.0%}"
    if low > 0:
        return f"Better than last value: {span}."
    if high < 0:
        return f"Worse than last value: {span}."
    return f"Not told apart from last value: {span}."
