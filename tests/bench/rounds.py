"""What the rounds of a pair say: each side's shortest and median time, the ratio of each round's pair."""

import math
import statistics


def quartiles(values):
    """Returns the lower and the upper quartile, linear between neighbours; a single value is both."""
    ordered = sorted(values)

    def at(share):
        position = share * (len(ordered) - 1)
        low = math.floor(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (position - low) * (ordered[high] - ordered[low])

    return at(0.25), at(0.75)


def summarize(rounds):
    """Returns the shortest of the rounds' shortest times and the median of their medians.

    rounds: what one side says of each: {"latency_ms": {"min", "p50"}, ...}.
    """
    latencies = [row["latency_ms"] for row in rounds]
    return {
        "min_ms": min(latency["min"] for latency in latencies),
        "median_ms": statistics.median(latency["p50"] for latency in latencies),
    }


def compare(octet, peer):
    """Returns the ratio peer / octet of each round's medians: above 1 Octet is faster. Its median, and its quartiles."""
    ratios = [b["latency_ms"]["p50"] / a["latency_ms"]["p50"] for a, b in zip(octet, peer, strict=True)]
    low, high = quartiles(ratios)
    return {"median": statistics.median(ratios), "low": low, "high": high, "rounds": ratios}


def geometric_mean(values):
    return math.exp(statistics.fmean(math.log(value) for value in values))


def agreement(answer, reference):
    """Returns (cosine, largest absolute difference over the largest absolute value of the reference) of the outputs that
    agree least. Outputs go by their order; raises ValueError when number or sizes differ."""
    cosines, distances = [], []
    for (name, got), expected in zip(answer.items(), reference.values(), strict=True):
        if len(got) != len(expected):
            raise ValueError(f"output {name} has {len(got)} elements, expected {len(expected)}")
        # JSON has no NaN: a null is one.
        pairs = [(math.nan if a is None else a, math.nan if b is None else b) for a, b in zip(got, expected, strict=True)]
        norm = math.sqrt(sum(a * a for a, _ in pairs) * sum(b * b for _, b in pairs))
        equal = all(a == b for a, b in pairs)
        cosines.append(1.0 if equal else sum(a * b for a, b in pairs) / norm if norm else 0.0)
        largest = max((abs(b) for _, b in pairs), default=0)
        distances.append(0.0 if equal else max(abs(a - b) for a, b in pairs) / largest if largest else math.inf)
    if any(map(math.isnan, cosines)):
        return math.nan, math.nan
    return min(cosines), max(distances)
