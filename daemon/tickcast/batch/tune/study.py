"""The study of one job: its trials in `study.sqlite`, what to try next, what to give up, and what was best.

SQLite, because a kill in the middle of a write leaves the trial as it was: an appended journal can end in half a line,
and its lock outlives its owner. One process owns the file; the processes that fit never see it. The first trial is the
order as it stands, so that what was found is judged beside it; then come parameters that past searches found. Trials of
an earlier search on other bars tell the sampler where to look, and none of them is ever the best. It fits nothing.
"""

import sqlite3
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from tickcast.batch.judge.metrics import MOST_IS_BEST
from tickcast.batch.tune.samplers import decoded, distributions, encoded, grid_point, make_sampler
from tickcast.batch.tune.spaces import INTERRUPTED, TELLING, Space
from tickcast.batch.tune.starts import Start
from tickcast.errors import BadData, BadSettings
from tickcast.io.jobs.orders import TuneOrder
from tickcast.io.jobs.past import EarlierSearch
from tickcast.records import TrialRow

STUDY, NAME = "study.sqlite", "optimize"  # the name is a seed of Hyperband's brackets
PRUNE_AFTER = 5  # complete trials before the median means something
GOOD_SHARE, LEAST_GOOD = 0.1, 5  # the trials that importance takes for good; fewer tell nothing (Optuna's advice)
ORIGIN, EARLIER = "origin", "earlier"  # of a trial: who found its parameters; which trial of an earlier search it is
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class Study:
    """`with Study(...) as study`: `ask`, then `epoch` after each, then `end` or `fail`."""

    def __init__(
        self, folder: Path, order: TuneOrder, space: Space, first: dict[str, Any], *, fingerprint: str,
        starts: Sequence[Start] = (), earlier: Sequence[EarlierSearch] = (),
    ) -> None:  # fmt: skip
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._order, self._space, self._job = order, space, folder.name
        self._first, self._earlier = encoded(space, first), earlier
        self._begin_with = {"": self._first, **{start.origin: encoded(space, start.params) for start in starts}}
        self._distributions = distributions(space)
        self._running: dict[int, Trial] = {}
        self._sign = -1 if order.metric in MOST_IS_BEST else 1  # of a loss, among values of which most is best
        self._storage = _storage(folder / STUDY)
        try:
            self._open(folder / STUDY, fingerprint)
        except BaseException:  # nobody gets to leave a `with` that was not entered
            self.__exit__()
            raise

    def _open(self, path: Path, fingerprint: str) -> None:
        self._study = optuna.create_study(
            storage=self._storage, study_name=NAME, pruner=self._pruner(), load_if_exists=True,
            direction="minimize" if self._sign > 0 else "maximize",
        )  # fmt: skip
        if self._study.user_attrs.get("fingerprint", fingerprint) != fingerprint:
            raise BadSettings(f"{path} belongs to another order or other bars", remedy="begin in a folder of its own")
        self._study.set_user_attr("fingerprint", fingerprint)
        self.give_up()
        there = self._origins()
        for origin in [origin for origin in self._begin_with if origin not in there]:
            self._study.enqueue_trial(self._begin_with[origin], user_attrs={ORIGIN: origin})
        self._take_over()

    def __enter__(self) -> "Study":
        return self

    def __exit__(self, *_: object) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    def ask(self) -> tuple[int, dict[str, Any]] | None:
        """The number and the parameters of the next trial; None when there have been enough."""
        place = len(self._asked())
        if place >= self._order.trials:
            return None
        is_given = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if self._order.sampler == "grid" and not is_given:
            point = grid_point(self._space, seed=self._order.seed, place=place - len(self._origins()))
            if point is None:
                return None
            self._study.enqueue_trial(encoded(self._space, point))
        self._study.sampler = make_sampler(self._order.sampler, self._space, seed=self._order.seed, place=place)
        trial = self._study.ask(self._distributions)
        self._running[trial.number] = trial
        return trial.number, decoded(self._space, trial.params)

    def epoch(self, number: int, epoch: int, loss: float) -> bool:
        """Whether the trial is worth going on with; the first always is, for the others are judged beside it."""
        trial = self._running[number]
        trial.report(self._sign * loss, epoch)
        return trial.params == self._first or not trial.should_prune()

    def end(self, number: int, value: float | None, *, epochs: int, seconds: float) -> TrialRow:
        """None: it was pruned."""
        self._note(number, epochs=epochs, seconds=seconds)
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        self._study.tell(self._running.pop(number), value, state=state)
        self._take_over()
        return self._row(self._study.get_trials(deepcopy=False)[number])

    def fail(self, number: int, why: str, *, seconds: float) -> TrialRow:
        self._note(number, seconds=seconds, why=why)
        self._study.tell(self._running.pop(number), state=TrialState.FAIL)
        return self._row(self._study.get_trials(deepcopy=False)[number])

    def give_up(self) -> list[TrialRow]:
        """Trials that run, here or in a process that is gone, fail as interrupted and will be asked again."""
        self._running.clear()
        left = self._study.get_trials(states=(TrialState.RUNNING,))
        for trial in left:
            self._storage.set_trial_user_attr(trial._trial_id, "why", INTERRUPTED)
            self._study.tell(trial.number, state=TrialState.FAIL)
            if len(trial.params) == len(self._space):  # killed before it had them all, it has none to be asked again
                again = {name: value for name, value in trial.user_attrs.items() if name == ORIGIN}
                self._study.enqueue_trial(trial.params, user_attrs=again)
        return [self._row(self._study.get_trials(deepcopy=False)[trial.number]) for trial in left]

    def rows(self) -> list[TrialRow]:
        """Of all of this search that ended."""
        trials = self._study.get_trials(deepcopy=False)
        return [self._row(trial) for trial in trials if trial.state in STATES and EARLIER not in trial.user_attrs]

    def counts(self) -> dict[str, int]:
        return dict(Counter(row.state for row in self.rows()))

    def best(self) -> TrialRow:
        """Of equals the first."""
        rows = self.rows()
        complete = [row for row in rows if row.state == "complete"]
        if not complete:
            why = next((row.why for row in rows if row.why != INTERRUPTED), "none was given the time")
            raise BadData(f"no trial of the search ended with a value: {why}", remedy="fit one model to see more")
        return min(complete, key=lambda row: (self._sign * (row.value or 0.0), row.number))

    def first(self) -> TrialRow | None:
        """The order as it stands; None where it has not ended with a value."""
        complete = (row for row in self.rows() if row.state == "complete")
        return next((row for row in complete if encoded(self._space, row.params) == self._first), None)

    def importance(self) -> dict[str, float]:
        """The share of each parameter in how good trials differ from all; empty where too few trials tell."""
        varied = [name for name, distribution in self._distributions.items() if not distribution.single()]
        complete = self.counts().get("complete", 0)
        if len(varied) < 2 or complete < TELLING:
            return {}
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # takes as long as torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parameters that differ in no good trial
            judge = PedAnovaImportanceEvaluator(target_quantile=max(GOOD_SHARE, LEAST_GOOD / complete))
            found = get_param_importances(self._study, evaluator=judge, params=varied)
        return {name: round(float(share), 4) for name, share in found.items()}

    def _asked(self) -> list[FrozenTrial]:
        """All that count: an interrupted trial is asked again and stands for itself then."""
        trials = self._study.get_trials(deepcopy=False)
        return [t for t in trials if t.state != TrialState.WAITING and t.user_attrs.get("why") != INTERRUPTED]

    def _note(self, number: int, **attributes: Any) -> None:
        for name, value in attributes.items():
            self._running[number].set_user_attr(name, value)

    def _row(self, trial: FrozenTrial) -> TrialRow:
        notes, value = trial.user_attrs, trial.value
        if trial.state == TrialState.PRUNED and value is not None:
            value *= self._sign  # its last epoch's loss
        return TrialRow(
            job=self._job, number=trial.number, state=STATES[trial.state],  # type: ignore[arg-type]
            params=decoded(self._space, trial.params), value=value, epochs=notes.get("epochs", 0),
            seconds=notes.get("seconds", 0.0), why=notes.get("why", ""), origin=notes.get(ORIGIN, ""),
        )  # fmt: skip

    def _origins(self) -> set[str]:
        """Of what it begins with, as far as that waits, runs or has ended."""
        counted = (t.user_attrs for t in self._study.get_trials(deepcopy=False))
        return {notes[ORIGIN] for notes in counted if ORIGIN in notes and notes.get("why") != INTERRUPTED}

    def _take_over(self) -> None:
        """Trials of earlier searches, once, as soon as the first has ended: their values are moved by as much as its
        own differs from what it was there.
        """
        first = self.first() if self._earlier else None
        if first is None or first.value is None:
            return
        taken = {trial.user_attrs.get(EARLIER) for trial in self._study.get_trials(deepcopy=False)}
        for search in self._earlier:
            complete = [row for row in search.trials if row.value is not None and self._is_possible(row)]
            was = next((row.value for row in complete if row.params == first.params), None)
            for row in complete if was is not None else []:
                if (name := f"{search.job}/{row.number}") not in taken:
                    self._study.add_trial(optuna.trial.create_trial(
                        params=encoded(self._space, row.params), distributions=self._distributions,
                        value=(row.value or 0.0) - (was or 0.0) + first.value, user_attrs={EARLIER: name},
                    ))  # fmt: skip

    def _is_possible(self, row: TrialRow) -> bool:
        """It ended with a value, and may be tried still."""
        known = set(row.params) == set(self._space) and row.state == "complete"
        return known and all(self._space[name].holds(value) for name, value in row.params.items())

    def _pruner(self) -> BasePruner:
        if self._order.pruner == "median":
            reported = PRUNE_AFTER if self._earlier else 1  # of earlier trials no epochs are known
            return MedianPruner(n_startup_trials=PRUNE_AFTER, n_min_trials=reported)
        if self._order.pruner == "hyperband":
            return HyperbandPruner(min_resource=1, max_resource=self._order.fit.epochs)
        return NopPruner()


def _storage(path: Path) -> RDBStorage:
    opened: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, check_same_thread=False)
        opened.append(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last trials, never the file
        return connection

    try:
        return RDBStorage(f"sqlite:///{path}", engine_kwargs={"creator": connect})
    except Exception as error:  # whatever SQLAlchemy, alembic or SQLite find wrong with the file
        for connection in opened:  # the storage that would have closed them was never made
            connection.close()
        raise BadData(f"{path} cannot be opened: {error}", remedy="remove it to begin anew") from None
