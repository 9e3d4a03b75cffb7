"""The book of alerts: which are open, since when, and what is to be said of them now. It sends nothing and knows no
clock: the time comes in with each call.

An alert is known by its name and its subject. It is raised once, repeated while it lasts, and ended. However many
subjects a name has, `MOST_SUBJECTS` of them are open at most, and one more that stands for the others.
"""

from collections.abc import Iterable, Mapping

import msgspec

from tickcast.alerts import ALERTS
from tickcast.records import Alert

MOST_SUBJECTS = 32
OTHERS = "others"
SUBJECT_CHARS, DETAIL_CHARS = 96, 400
SECOND = 10**9

Key = tuple[str, str]


class AlertBook:
    """Each call gives the records that are to be sent."""

    def __init__(
        self, *, repeat_every_s: int, quiet_s: int, raised_by: str, was_open: Iterable[Alert] = (), at_ns: int = 0
    ) -> None:
        """`was_open`: what the run before left, which goes on as if there had been no restart at `at_ns`."""
        self._repeat_ns, self._quiet_ns = repeat_every_s * SECOND, quiet_s * SECOND
        self._raised_by, self._began_ns = raised_by, at_ns
        self._open = {(alert.name, alert.subject): alert for alert in was_open}

    def open(self) -> list[Alert]:
        """In the order in which they were raised."""
        return sorted(self._open.values(), key=lambda alert: alert.first_ns)

    def raise_alert(self, name: str, subject: str, detail: str, at_ns: int) -> list[Alert]:
        """It is so: a record where that is new."""
        key, detail = self._key(name, subject), _line(detail, DETAIL_CHARS)
        if key[1] == OTHERS:
            detail = f"more than {MOST_SUBJECTS} subjects at once"
        if known := self._open.get(key):
            self._open[key] = msgspec.structs.replace(known, detail=detail, last_ns=at_ns)
            return []
        kind = ALERTS[name]
        alert = self._open[key] = Alert(
            name=name, subject=key[1], severity=kind.severity, event="raised", detail=detail, meaning=kind.meaning,
            remedy=kind.remedy, runbook=kind.runbook, first_ns=at_ns, last_ns=at_ns, ended_ns=None, at_ns=at_ns,
            raised_by=self._raised_by,
        )  # fmt: skip
        return [alert]

    def end_alert(self, name: str, subject: str, at_ns: int) -> list[Alert]:
        """It is over; one that stood for others ends with the first of them, and who is left raises his own."""
        ended = self._end((name, _line(subject, SUBJECT_CHARS)), at_ns)
        return ended + (self._end((name, OTHERS), at_ns) if ended else [])

    def see(self, name: str, subjects: Mapping[str, str], at_ns: int) -> list[Alert]:
        """These are all for which it is so, with their details. Others end once they were quiet for long enough, so
        that what comes and goes is one alert."""
        records: list[Alert] = []
        for subject, detail in subjects.items():
            records += self.raise_alert(name, subject, detail, at_ns)
        for key, alert in [*self._open.items()]:
            if key[0] != name or alert.last_ns == at_ns:
                continue
            if alert.last_ns > at_ns:  # the clock was set back
                self._open[key] = msgspec.structs.replace(alert, last_ns=at_ns)
            elif at_ns - max(alert.last_ns, self._began_ns) >= self._quiet_ns:
                records += self._end(key, at_ns)
        return records

    def due(self, at_ns: int) -> list[Alert]:
        """Those of which nothing was said for so long that they are to be repeated."""
        late = [key for key, alert in self._open.items() if not 0 <= at_ns - alert.at_ns < self._repeat_ns]
        for key in late:
            self._open[key] = msgspec.structs.replace(self._open[key], event="repeated", at_ns=at_ns)
        return [self._open[key] for key in late]

    def _end(self, key: Key, at_ns: int) -> list[Alert]:
        alert = self._open.pop(key, None)
        return [msgspec.structs.replace(alert, event="ended", ended_ns=at_ns, at_ns=at_ns)] if alert else []

    def _key(self, name: str, subject: str) -> Key:
        key = (name, _line(subject, SUBJECT_CHARS))
        if key in self._open or sum(own == name and of != OTHERS for own, of in self._open) < MOST_SUBJECTS:
            return key
        return name, OTHERS


def _line(text: str, most: int) -> str:
    """As much of it as a line takes, without what a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in text[:most])
