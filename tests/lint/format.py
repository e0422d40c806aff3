#!/usr/bin/env python3
"""Checks that every C++ file is what clang-format makes of it. `./dev format` makes it so."""

import os
import subprocess
import sys

from source_tree import ROOT, cpp_files


def main():
    paths = [str(path) for path in cpp_files()]
    unformatted = []
    for first in range(0, len(paths), 50):
        command = ["clang-format", "--dry-run", "--Werror", *paths[first : first + 50]]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if result.returncode:
            unformatted += sorted({line.split(":")[0] for line in result.stderr.splitlines() if ": error:" in line})
            if not unformatted:
                sys.stderr.write(result.stderr)
                return 1
    for path in unformatted:
        print(f"{os.path.relpath(path, ROOT) if os.path.isabs(path) else path}: not formatted; run ./dev format")
    print(f"format: {len(unformatted) or 'no'} of {len(paths)} files to format")
    return 1 if unformatted else 0


if __name__ == "__main__":
    sys.exit(main())
