#!/usr/bin/env python3
"""Runs every lint over the checkout; prints one line per violation and fails if there is any."""

import sys

import includes
import sizes
import words

LINTS = [includes, sizes, words]


def main():
    violations = sorted(violation for lint in LINTS for violation in lint.check())
    for violation in violations:
        print(violation)
    names = ", ".join(lint.__name__ for lint in LINTS)
    print(f"lint ({names}): {len(violations) or 'no'} violation{'s' if len(violations) != 1 else ''}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
