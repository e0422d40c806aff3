#!/usr/bin/env python3
"""Nodes whose meaning follows from the opset: Octet answers as ONNX Runtime does, with extents in the file and without.

usage: opset_test.py ANSWERS [WORD...]

ANSWERS is the program of answers.cc. A row that ONNX Runtime does not run is held to onnx.reference. With WORDs only rows whose title
holds one of them run.
"""

import pathlib
import sys
import tempfile

import numpy as np

import octet_answers
import opset_rows

RTOL, ATOL = 1e-4, 1e-5


def difference(expected, got):
    """How an output is wrong, or None."""
    expected = np.asarray(expected)
    if (got.dtype, got.shape) != (expected.dtype, expected.shape) and not (got.dtype.kind in "OU" and expected.dtype.kind in "OU"):
        return f"expected {expected.dtype}{list(expected.shape)}, got {got.dtype}{list(got.shape)}"
    if expected.dtype.kind == "f":
        same = np.isclose(got.astype(np.float64), expected.astype(np.float64), RTOL, ATOL, equal_nan=True)
    else:
        same = got == expected
    return None if np.all(same) else f"{np.sum(~same)} of {same.size} elements differ: expected {expected.tolist()}, got {got.tolist()}"


def complaint(octet, row):
    """What is wrong with Octet's answers, or None; and who answered rightly."""
    try:
        expected, by = row.expected()
    except Exception as error:  # Neither runs it: the row is a mistake.
        return f"nobody answers: {error}", "nobody"
    for is_open in (False, True):
        extents = "open" if is_open else "given"
        try:
            got = octet.answers(row.model(is_open), row.given())
        except octet_answers.Failed as failed:
            return f"{extents} extents: {failed}", by
        for (name, array), right in zip(got.items(), expected, strict=True):
            if wrong := difference(right, array):
                return f"{extents} extents: {name}: {wrong}", by
    return None, by


def main():
    words = sys.argv[2:]
    rows = [row for family in opset_rows.FAMILIES for row in family()]
    rows = [row for row in rows if not words or any(word in row.title() for word in words)]
    wrong, answered = 0, {}
    with tempfile.TemporaryDirectory() as name:
        octet = octet_answers.Octet(sys.argv[1], pathlib.Path(name))
        for row in rows:
            what, by = complaint(octet, row)
            answered[by] = answered.get(by, 0) + 1
            if what is not None:
                wrong += 1
                print(f"FAIL {row.title()} (against {by})\n  {what}", flush=True)
        octet.close()
    print(f"{len(rows)} rows, {wrong} wrong; " + ", ".join(f"{count} answered by {by}" for by, count in sorted(answered.items())))
    return 1 if wrong or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
