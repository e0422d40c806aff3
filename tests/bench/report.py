"""What was measured, as a table, as JSON, and as a plot."""

import json
import math
import os
import platform
from xml.sax.saxutils import escape

import rounds

HEADS = [
    "model",
    "Octet, ms",
    "ONNX Runtime, ms",
    "ratio",
    "fp32 / this",
    "primitives, ms",
    "whole / primitives",
    "whole / primitives in place",
    "of peak",
    "cosine",
]
MEMORY_HEADS = ["model", "weights, MB", "arena, MB", "arena / live", "peak RSS, MB", "ready, ms"]
# Least cosine of an answer with the fp32 answer. An int8 answer may also be as far away as the peer's is, within USEFUL.
LEAST_COSINE = {"fp32": 0.9999, "bf16": 0.99, "int8": 0.98, "int8 as shipped": 0.98, "int8-dynamic": 0.98}
PEERS_MARGIN = 0.01
USEFUL = 0.9
# Random weights carry an error on and on that trained ones damp: there an answer only shows that nothing is broken.
USEFUL_OF_RANDOM_WEIGHTS = 0.75


def useful(row):
    return USEFUL_OF_RANDOM_WEIGHTS if row.get("random_weights") else USEFUL


def is_wrong(row):
    """Whether Octet's answer is too far from the fp32 answer for its time to count."""
    cosine, least = row.get("cosine", {}), LEAST_COSINE[row["precision"]]
    if "int8" in row["precision"] and "peer" in cosine:
        least = max(useful(row), min(least, cosine["peer"] - PEERS_MARGIN))
    return not cosine.get("octet", 1) >= least


def counts(row):
    """Whether the ratio is one of two useful answers."""
    return "ratio" in row and not is_wrong(row) and row.get("cosine", {}).get("peer", 1) >= useful(row)


def groups(rows):
    """Yields (title, rows) of what one comparison is about: a precision, a batch, a number of threads."""
    keys = {}
    for row in rows:
        keys.setdefault((row["threads"], row["batch"], row["precision"]), []).append(row)
    for (threads, batch, precision), members in keys.items():
        yield f"{precision}, batch {batch}, {threads} thread{'s' if threads > 1 else ''}", members


def _spread(ratio):
    return "{median:.2f} ({low:.2f} to {high:.2f})".format(**ratio)


def _cells(row):
    if "error" in row:
        return [row["model"], row["error"], *[""] * (len(HEADS) - 2)]
    times = ["{min_ms:.3f}, {median_ms:.3f}".format(**row[side]) if side in row else "" for side in ("octet", "peer")]
    ratio = _spread(row["ratio"]) if "ratio" in row else row.get("note", "")
    fp32_ratio = _spread(row["fp32_ratio"]) if "fp32_ratio" in row else ""
    cosine = ", ".join(f"{value:.4f}" for value in row.get("cosine", {}).values())
    whole = [f"{row[key]:.2f}" if row[key] else "" for key in ("whole_to_primitives", "whole_to_primitives_in_place")]
    wrong = " wrong answer" if is_wrong(row) else ""
    share = f"{row['macs_per_second'] / row['peak_macs_per_second']:.0%}"
    primitives = f"{row['primitive_sum_ms']:.3f}"
    return [row["model"], *times, ratio, fp32_ratio, primitives, *whole, share, cosine + wrong]


def _memory_cells(row):
    """Returns what a model takes in memory, and its time to the first answer; both sides where there are two."""
    memory = row["memory"]
    weights, arena = (f"{memory[key] / 1e6:.2f}" for key in ("weights_bytes", "arena_bytes"))
    to_live = f"{memory['arena_bytes'] / memory['live_peak_bytes']:.2f}" if memory["live_peak_bytes"] else ""
    sides = [row[side] for side in ("octet", "peer") if side in row]
    peaks = ", ".join(f"{side['peak_bytes'] / 1e6:.0f}" for side in sides)
    ready = ", ".join(f"{side['ready_ms']:.0f}" for side in sides)
    return [row["model"], weights, arena, to_live, peaks, ready]


def _aligned(table):
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    table = [table[0], ["-" * width for width in widths], *table[1:]]
    return ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in table]


def summary(rows):
    """Returns one line on the ratios of a group, or None when there is nothing to compare."""
    ratios = {row["model"]: row["ratio"]["median"] for row in rows if counts(row)}
    if not ratios:
        return None
    slower = [f"{name} {ratio:.2f}" for name, ratio in sorted(ratios.items(), key=lambda item: item[1]) if ratio < 1]
    line = f"Geometric mean of {len(ratios)} ratios: {rounds.geometric_mean(ratios.values()):.2f}."
    return f"{line} Octet is slower on {', '.join(slower)}." if slower else f"{line} Octet is slower on none."


def overview(rows):
    """Returns the lines of one table of all ratios: a row per model, a column per precision, batch and threads."""
    shown = dict(groups(rows))
    ratios = {
        title: {row["model"]: row["ratio"]["median"] for row in members if counts(row)}
        for title, members in shown.items()
    }
    ratios = {title: column for title, column in ratios.items() if column}
    if not ratios:
        return []
    models = dict.fromkeys(row["model"] for members in shown.values() for row in members)
    lines = [["ONNX Runtime / Octet", *ratios]]
    for model in models:
        cells = [f"{column[model]:.2f}" if model in column else "" for column in ratios.values()]
        lines.append([model, *cells])
    lines.append(["geometric mean", *(f"{rounds.geometric_mean(column.values()):.2f}" for column in ratios.values())])
    return _aligned(lines)


def table(report):
    """Returns the lines of all groups' tables, and of the overview."""
    lines = [f"{report['machine']}; Octet {report['octet']}, ONNX Runtime {report['peer'] or 'not there'}."]
    for title, rows in groups(report["rows"]):
        lines += ["", title, "", *_aligned([HEADS, *map(_cells, rows)])]
        lines += ["", line] if (line := summary(rows)) else []
        measured = [row for row in rows if "error" not in row]
        lines += ["", *_aligned([MEMORY_HEADS, *map(_memory_cells, measured)])] if measured else []
    if report["peer"]:
        lines += ["", *overview(report["rows"])]
        lines += [
            "",
            "Times: shortest, median. Ratio: ONNX Runtime's median time over Octet's, the median of the rounds and their",
            "quartiles; above 1 Octet is faster. fp32 / this: Octet's fp32 in the same turns. Of peak: multiply-adds per second",
            "over the most that one layer reaches in this precision. Cosine: of Octet's and of ONNX Runtime's answer with the",
            "fp32 answer. Where two values are given, they are Octet's and ONNX Runtime's.",
            "ONNX Runtime has no bf16 on these CPUs: beside bf16 it runs fp32.",
        ]
    return lines


def machine():
    """Returns the processor's name and how many of it there are."""
    model = platform.machine()
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{len(os.sched_getaffinity(0))} x {model}"


# The plot, in pixels.
WIDTH, LEFT, RIGHT, BAR, GAP, HEAD = 860, 190, 60, 14, 5, 40
FASTER, SLOWER, INK, GRID = "#2b7a78", "#c8553d", "#222222", "#d9d9d9"


def _text(x, y, words, anchor="start", weight="normal"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{INK}">{escape(words)}</text>'


def _bar(row, y, per_ratio):
    ratio = row["ratio"]
    low, high = (LEFT + per_ratio * ratio[key] for key in ("low", "high"))
    middle, width = y + BAR / 2, per_ratio * ratio["median"]
    colour = FASTER if ratio["median"] >= 1 else SLOWER
    return [
        _text(LEFT - 8, y + BAR - 3, row["model"], "end"),
        f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>',
        f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" stroke="{INK}"/>',
        _text(max(LEFT + width, high) + 5, y + BAR - 3, f"{ratio['median']:.2f}"),
    ]


def plot(report):
    """Returns an SVG: a horizontal bar per row, its length the ratio, a line from quartile to quartile; None without one."""
    shown = [(title, [row for row in rows if counts(row)]) for title, rows in groups(report["rows"])]
    shown = [(title, rows) for title, rows in shown if rows]
    if not shown:
        return None
    longest = max(1.5, *(row["ratio"]["high"] for _, rows in shown for row in rows))
    per_ratio = (WIDTH - LEFT - RIGHT) / longest
    drawn, y = [], HEAD
    for title, rows in shown:
        drawn.append(_text(LEFT, y + 22, title, weight="bold"))
        y += 32
        for row in rows:
            drawn += _bar(row, y, per_ratio)
            y += BAR + GAP
    grid = []
    for half in range(math.floor(2 * longest) + 1):
        x, colour = LEFT + per_ratio * half / 2, INK if half == 2 else GRID
        grid.append(f'<line x1="{x:.1f}" y1="{HEAD}" x2="{x:.1f}" y2="{y}" stroke="{colour}"/>')
        grid.append(_text(x, y + 16, f"{half / 2:g}", "middle"))
    head = f"Time of ONNX Runtime {report['peer']} / time of Octet: above 1 Octet is faster"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 28}" width="{WIDTH}" height="{y + 28}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{y + 28}" fill="#ffffff"/>',
            _text(12, 24, head, weight="bold"),
            *grid,
            *drawn,
            "</svg>",
            "",
        ]
    )


def write(report, folder):
    """Writes results.json, table.md and, where there are ratios, ratios.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / "table.md").write_text("\n".join(table(report)) + "\n")
    picture = plot(report)
    if picture:
        (folder / "ratios.svg").write_text(picture)
