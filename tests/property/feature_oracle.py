"""Every kind of feature once more, in plain Python and straight from its definition: no weights, no tricks, slow.

A function takes the bars up to the asked one, oldest first, and the entry's parameters; one number per channel.
"""

import math
import statistics
from dataclasses import dataclass
from itertools import pairwise


@dataclass
class Past:
    open: list[float]
    high: list[float]
    low: list[float]
    close: list[float]
    volume: list[float]
    as_of: list[int]


def log_returns(close):
    return [math.log(b / a) if a > 0 and b > 0 else 0.0 for a, b in pairwise(close)]


def series(past, of):
    return {"close": past.close, "volume": past.volume}[of] if of != "log_return" else log_returns(past.close)


def windowed(kind):
    def feature(past, *, window, of="close"):
        return [kind(series(past, of)[-window:])]

    return feature


def std(values):
    return statistics.stdev(values) if len(set(values)) > 1 else 0.0


def zscore(values):
    return (values[-1] - statistics.fmean(values)) / std(values) if std(values) else 0.0


def minmax(values):
    low, high = min(values), max(values)
    return (values[-1] - low) / (high - low) if high > low else 0.5


def quartiles(values):
    ascending = sorted(values)

    def at(share):
        place = share * (len(ascending) - 1)
        low, high = ascending[math.floor(place)], ascending[math.ceil(place)]
        return low + (place - math.floor(place)) * (high - low)

    return at(0.25), at(0.5), at(0.75)


def robust(values):
    low, median, high = quartiles(values)
    return (values[-1] - median) / (high - low) if high > low else 0.0


def ema(values, span):
    """All values of an exponential moving average that starts as the first value."""
    smooth = [values[0]]
    for value in values[1:]:
        smooth.append(smooth[-1] + 2 / (span + 1) * (value - smooth[-1]))
    return smooth


def ema_feature(past, *, span, of="close"):
    return [ema(series(past, of)[-8 * span :], span)[-1]]


def ew_zscore(past, *, span, of="close"):
    newest = series(past, of)[-1]
    values = [value - newest for value in series(past, of)[-8 * span :]]  # the same, with all their digits
    mean = ema(values, span)[-1]
    variance = ema([(value - mean) ** 2 for value in values], span)[-1]
    return [-mean / math.sqrt(variance) if variance else 0.0]


def macd(past, *, fast, slow, signal):
    close = past.close[-8 * max(slow, signal) :]
    line = [a - b for a, b in zip(ema(close, fast), ema(close, slow))]
    smooth = ema(line, signal)[-1]
    return [line[-1], smooth, line[-1] - smooth]


def wilder(values, period):
    average = sum(values[:period]) / period
    for value in values[period:]:
        average = (average * (period - 1) + value) / period
    return average


def rsi(past, *, period):
    close = past.close[-8 * (2 * period - 1) - 1 :]
    changes = [b - a for a, b in pairwise(close)]
    gain = wilder([max(change, 0.0) for change in changes], period)
    loss = wilder([max(-change, 0.0) for change in changes], period)
    if gain == loss == 0:
        return [50.0]
    return [100.0 if loss == 0 else 100 - 100 / (1 + gain / loss)]


def atr(past, *, period):
    count = 8 * (2 * period - 1)
    bars = list(zip(past.high, past.low, past.close))[-count - 1 :]
    ranges = [max(h - low, abs(h - c), abs(low - c)) for (_, _, c), (h, low, _) in pairwise(bars)]
    return [wilder(ranges, period)]


def parkinson(past):
    return [abs(log_move(past.low[-1], past.high[-1])) / math.sqrt(4 * math.log(2))]


def garman_klass(past):
    reach, move = log_move(past.low[-1], past.high[-1]), log_move(past.open[-1], past.close[-1])
    return [math.sqrt(max(reach**2 / 2 - (2 * math.log(2) - 1) * move**2, 0.0))]


def log_move(before, now):
    return math.log(now / before) if before > 0 and now > 0 else 0.0


def bollinger(past, *, window, k):
    close = past.close[-window:]
    middle, spread = statistics.fmean(close), statistics.pstdev(close) if len(set(close)) > 1 else 0.0
    upper, lower = middle + k * spread, middle - k * spread
    return [(close[-1] - lower) / (upper - lower) if upper > lower else 0.5]


def realised_volatility(past, *, window):
    return [math.sqrt(sum(r * r for r in log_returns(past.close)[-window:]))]


def volatility_regime(past, *, fast, slow):
    sizes, label = [abs(r) for r in log_returns(past.close)[-4 * slow :]], 0
    means = {fast: 0.0, slow: 0.0}
    for seen, size in enumerate(sizes, start=1):
        for span in means:
            share = max(2 / (span + 1), 1 / seen)
            means[span] += (size - means[span]) * share
        now, usual = means[fast], means[slow]
        if (label == 1 and now < 1.25 * usual) or (label == -1 and now * 1.25 > usual):
            label = 0
        label = 1 if now > 1.5 * usual else -1 if now * 1.5 < usual else label
    return [label]


def volume_ratio(past, *, window):
    mean = sum(past.volume[-window:]) / window
    return [past.volume[-1] / mean if mean else 1.0]


def log_return(past, *, period):
    before, now = past.close[-1 - period], past.close[-1]
    return [math.log(now / before) if before > 0 and now > 0 else 0.0]


def roc(past, *, period):
    before = past.close[-1 - period]
    return [(past.close[-1] - before) / abs(before) if before else 0.0]


def diff(past, *, period):
    return [past.close[-1] - past.close[-1 - period]]


def lags(past, *, at, of="log_return"):
    return [series(past, of)[-1 - lag] for lag in at]


def fourier(past, *, n, period):
    """1970-01-04 was a Sunday."""
    day = 86_400 * 10**9
    share = past.as_of[-1] % day / day if period == "day" else (past.as_of[-1] - 3 * day) % (7 * day) / (7 * day)
    waves = [(math.sin(2 * math.pi * k * share), math.cos(2 * math.pi * k * share)) for k in range(1, n + 1)]
    return [value for wave in waves for value in wave]


def spectrum(past, *, window, n):
    moves = log_returns(past.close)[-window:]
    found = []
    for k in range(1, n + 1):
        turned = sum(
            move * complex(math.cos(a := 2 * math.pi * k * j / window), math.sin(a)) for j, move in enumerate(moves)
        )
        found.append(2 / window * abs(turned))
    return found  # fmt: skip


def detrend(past, *, window):
    close = past.close[-window:]
    slope, intercept = statistics.linear_regression(range(window), close)
    return [close[-1] - (intercept + slope * (window - 1))]


def iqr_outlier(past, *, window, k):
    moves = log_returns(past.close)[-window:]
    low, _, high = quartiles(moves)
    return [0.0 if low - k * (high - low) <= moves[-1] <= high + k * (high - low) else 1.0]


def density_outlier(past, *, window, eps, least):
    """DBSCAN as in the textbook: grow every cluster from its core points; what no cluster holds is noise."""
    moves = log_returns(past.close)[-window:]
    middle = statistics.median(moves)
    radius = eps * 1.4826 * statistics.median(abs(move - middle) for move in moves)
    near = [{j for j, other in enumerate(moves) if abs(other - move) <= radius} for move in moves]
    clustered: set[int] = set()
    for group in near:
        if len(group) >= least:
            clustered |= group
    return [0.0 if window - 1 in clustered else 1.0]


def anomaly_score(past, *, window):
    moves = log_returns(past.close)[-window:]
    middle = statistics.median(moves)
    spread = 1.4826 * statistics.median(abs(move - middle) for move in moves)
    return [abs(moves[-1] - middle) / spread if spread else 0.0]


def scaled(past, window):
    """The window's log returns in units of their root mean square, and that."""
    close = past.close[-window - 1 :]
    moves = [math.log1p((b - a) / a) for a, b in pairwise(close)]
    size = math.sqrt(statistics.fmean(move * move for move in moves))
    return [move / size if size else 0.0 for move in moves], size


def projection(past, *, components, mean, learnt_to_ns):
    moves, _ = scaled(past, len(mean))
    return [sum(c * (x - m) for c, x, m in zip(row, moves, mean)) for row in components]


def shape(past, *, window):
    moves, size = scaled(past, window)
    volumes = past.volume[-window:]
    older, newer = volumes[: window - window // 2], volumes[window - window // 2 :]
    older_mean, newer_mean = sum(older) / len(older), sum(newer) / len(newer)
    both = older_mean + newer_mean
    return [
        math.log(max(size, 1e-8)), sum(moves) / math.sqrt(window),
        sum(a * b for a, b in pairwise(moves)) / sum(m * m for m in moves) if size else 0.0,
        newer_mean / both if both else 0.5,
    ]  # fmt: skip


def distances(past, window, points, mean, spread):
    place = [(x - m) / s for x, m, s in zip(shape(past, window=window), mean, spread)]
    return [math.dist(point, place) for point in points]


def kmeans(past, *, window, centers, mean, spread, learnt_to_ns):
    far = distances(past, window, centers, mean, spread)
    return [far.index(min(far)), min(far)]


def dbscan(past, *, window, cores, reach, mean, spread, learnt_to_ns):
    far = min(distances(past, window, cores, mean, spread))
    return [1.0 if far > reach else 0.0, far / reach]


def regime(past, *, window, start, transition, mean, spread, learnt_to_ns):
    """Joint probabilities of state and window, never scaled, divided by their sum at the end alone."""
    joint = None
    for move in scaled(past, window)[0]:
        states = range(len(start))
        prior = start if joint is None else [sum(joint[r] * transition[r][s] for r in states) for s in states]
        joint = [prior[s] * statistics.NormalDist(mean[s], spread[s]).pdf(move) for s in states]
    return [each / sum(joint) for each in joint]


def loess(points, at, neighbours):
    """The local line through (x, y) points, at one place."""
    far = sorted(abs(x - at) for x, _ in points)
    reach = far[min(neighbours, len(far)) - 1] * max(1.0, neighbours / len(far))
    weight = [(1 - min(1.0, abs(x - at) / reach) ** 3) ** 3 if reach else float(x == at) for x, _ in points]
    total = sum(weight)
    middle_x = sum(w * x for w, (x, _) in zip(weight, points)) / total
    middle_y = sum(w * y for w, (_, y) in zip(weight, points)) / total
    moment = sum(w * (x - middle_x) ** 2 for w, (x, _) in zip(weight, points))
    product = sum(w * (x - middle_x) * (y - middle_y) for w, (x, y) in zip(weight, points))
    return middle_y + (product / moment * (at - middle_x) if moment > 1e-12 else 0.0)


def means(values, length):
    return [sum(values[i : i + length]) / length for i in range(len(values) - length + 1)]


def stl(values, period, neighbours):
    """Cleveland's inner loop, twice, on the series itself."""
    n, trend = len(values), [0.0] * len(values)
    least = 1.5 * period / (1 - 1.5 / neighbours)
    over, low_over = (next(odd for odd in range(1, 10**4, 2) if odd >= at) for at in (least, period))
    for _ in range(2):
        cycles = {}
        for phase in range(period):
            own = [(k, values[i] - trend[i]) for k, i in enumerate(range(phase, n, period))]
            for k in range(-1, len(own) + 1):
                cycles[phase + k * period] = loess(own, k, neighbours)
        low = means(means(means([cycles[i] for i in range(-period, n + period)], period), period), 3)
        season = [cycles[i] - loess([*enumerate(low)], i, low_over) for i in range(n)]
        rest = [v - s for v, s in zip(values, season)]
        trend = [loess([*enumerate(rest)], i, over) for i in range(n)]
    return season, trend


def mstl(past, *, window, periods, of="close"):
    values = series(past, of)[-window:]
    rest, seasons = [value - values[-1] for value in values], {p: [0.0] * window for p in periods}
    for _ in range(2):
        for number, period in enumerate(sorted(periods)):
            rest = [r + s for r, s in zip(rest, seasons[period])]
            seasons[period], trend = stl(rest, period, 11 + 4 * number)
            rest = [r - s for r, s in zip(rest, seasons[period])]
    last = [seasons[period][-1] for period in sorted(periods)]
    return [values[-1] + trend[-1], *last, 0.0 - trend[-1] - sum(last)]


ORACLE = {
    "lags": lags,
    "log_return": log_return,
    "roc": roc,
    "diff": diff,
    "rolling_mean": windowed(statistics.fmean),
    "rolling_std": windowed(std),
    "rolling_min": windowed(min),
    "rolling_max": windowed(max),
    "zscore": windowed(zscore),
    "ew_zscore": ew_zscore,
    "minmax": windowed(minmax),
    "robust": windowed(robust),
    "ema": ema_feature,
    "macd": macd,
    "rsi": rsi,
    "atr": atr,
    "parkinson": parkinson,
    "garman_klass": garman_klass,
    "bollinger": bollinger,
    "realised_volatility": realised_volatility,
    "volatility_regime": volatility_regime,
    "volume_ratio": volume_ratio,
    "fourier": fourier,
    "spectrum": spectrum,
    "detrend": detrend,
    "iqr_outlier": iqr_outlier,
    "density_outlier": density_outlier,
    "anomaly_score": anomaly_score,
    "mstl": mstl,
    "shape": shape,
    "pca": projection,
    "ica": projection,
    "kmeans": kmeans,
    "dbscan": dbscan,
    "regime": regime,
}
