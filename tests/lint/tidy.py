#!/usr/bin/env python3
"""Runs clang-tidy on the C++ files that changed last, the newest first, within a budget of files and seconds.

Headers are checked through the .cc file beside them. Needs build/release/compile_commands.json: ./dev build.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time

from source_tree import ROOT

DATABASE = ROOT / "build/release"


def git_lines(*arguments):
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.splitlines() if result.returncode == 0 else []


def changed_paths(commits):
    """Lists what differs from the last commit, then what the last commits touched, the newest first, each once."""
    uncommitted = git_lines("diff", "--name-only", "HEAD")
    untracked = git_lines("ls-files", "--others", "--exclude-standard")
    committed = git_lines("log", f"-{commits}", "--format=", "--name-only")
    return list(dict.fromkeys(uncommitted + untracked + committed))


def compiled_sources(paths, compiled):
    """Maps changed paths to the sources that compile them; what is not compiled (any more) is left out."""
    sources = []
    for path in paths:
        path = pathlib.PurePosixPath(path)
        if path.suffix in {".cc", ".h"}:
            sources.append(str(path.with_suffix(".cc")))
    return [source for source in dict.fromkeys(sources) if source in compiled]


def tidy(source, deadline):
    """Returns (source, findings); findings is None when there was no time left."""
    left = deadline - time.monotonic()
    if left <= 0:
        return source, None
    command = ["clang-tidy", "--quiet", "-p", str(DATABASE), source]
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=left, check=False)
    except subprocess.TimeoutExpired:
        return source, None
    findings = result.stdout.strip()
    if result.returncode and not findings:
        findings = result.stderr.strip()
    return source, findings if result.returncode else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", help="check these files instead of what changed")
    parser.add_argument("--commits", type=int, default=5, help="look at so many last commits (default 5)")
    parser.add_argument("--max-files", type=int, default=16, help="check at most so many files (default 16)")
    parser.add_argument("--seconds", type=int, default=240, help="stop after so many seconds (default 240)")
    arguments = parser.parse_args()
    if not (DATABASE / "compile_commands.json").is_file():
        print(f"{DATABASE.relative_to(ROOT)}/compile_commands.json is missing; run ./dev build")
        return 1
    entries = json.loads((DATABASE / "compile_commands.json").read_text())
    compiled = {os.path.relpath(entry["file"], ROOT) for entry in entries}
    paths = [os.path.relpath(path, ROOT) for path in arguments.paths]
    sources = compiled_sources(paths or changed_paths(arguments.commits), compiled)
    chosen = sources if paths else sources[: arguments.max_files]
    deadline = time.monotonic() + arguments.seconds
    with concurrent.futures.ThreadPoolExecutor(os.process_cpu_count()) as pool:
        results = list(pool.map(lambda source: tidy(source, deadline), chosen))
    for _, findings in results:
        if findings:
            print(findings)
    late = [source for source, findings in results if findings is None]
    failed = sum(bool(findings) for _, findings in results)
    print(
        f"clang-tidy: {len(results) - len(late)} of {len(sources)} changed files checked, {failed} with findings"
        + (f"; out of time for {', '.join(late)}" if late else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
