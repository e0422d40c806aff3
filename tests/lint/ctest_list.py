#!/usr/bin/env python3
"""Checks what ctest knows of each test: one label, the folder it comes from, and a time limit of its own.

usage: ctest_list.py BUILD_FOLDER
"""

import json
import subprocess
import sys

LABELS = {"unit", "conformance", "differential", "fuzz", "e2e", "fault", "bench", "lint"}
MAX_SECONDS = 900


def violations(tests):
    """Yields one line per test that ctest could not select by its kind or would wait for too long."""
    for test in tests:
        properties = {entry["name"]: entry["value"] for entry in test.get("properties", [])}
        labels = properties.get("LABELS", [])
        if len(labels) != 1 or labels[0] not in LABELS:
            yield f"{test['name']}: labels are {labels}, expected one of {', '.join(sorted(LABELS))}"
        seconds = properties.get("TIMEOUT", 0)
        if not 0 < seconds <= MAX_SECONDS:
            yield f"{test['name']}: TIMEOUT is {seconds or 'not set'}, expected at most {MAX_SECONDS} s"


def main():
    command = ["ctest", "--show-only=json-v1"]
    result = subprocess.run(command, cwd=sys.argv[1], capture_output=True, text=True, check=True)
    tests = json.loads(result.stdout)["tests"]
    found = list(violations(tests))
    for violation in found:
        print(violation)
    print(f"ctest list: {len(found) or 'no'} of {len(tests)} without a label or a time limit")
    return 1 if found or not tests else 0


if __name__ == "__main__":
    sys.exit(main())
