"""Keeps out names that say nothing, notes that nobody will read, and the traces of one machine."""

import re

from source_tree import ROOT, Violation, files, read_text

EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}

# Built from parts, so that this file passes its own check.
NOTES = re.compile(r"\b(?:" + "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK"]) + r")\b")
MACHINE_PATHS = re.compile(r"(?<![\w.$}~/-])/(?:" + "|".join(["work", "root", r"home/\w+", r"Users/\w+"]) + r")/")
MIRRORS = re.compile(
    r"\b(?:deb|security|archive|snapshot|ftp|registry|files|proxy)\."
    r"(?:debian|ubuntu|npmjs|yarnpkg|pythonhosted|golang)\.(?:org|com)\b"
)
WORDS = [
    (NOTES, "a note to do something later: do it, or open an issue"),
    (MACHINE_PATHS, "a path of one machine"),
    (MIRRORS, "names a mirror: leave the choice to the tool and its user"),
]


def check_name(path):
    return [
        Violation(str(path), 0, f"'{part}' says nothing: name what is in it")
        for part in path.parts
        if part.split(".")[0].removesuffix("_test") in EMPTY_NAMES
    ]


def check_text(path, lines):
    return [
        Violation(str(path), number, f"'{match.group()}': {why}")
        for number, line in enumerate(lines, start=1)
        for pattern, why in WORDS
        for match in pattern.finditer(line)
    ]


def check(root=ROOT):
    violations = []
    for path in files(root):
        violations += check_name(path)
        violations += check_text(path, read_text(path, root) or [])
    return violations
