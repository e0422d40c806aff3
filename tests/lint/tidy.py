#!/usr/bin/env python3
"""Runs clang-tidy on the C++ files that the last commits changed, the newest first, within a budget of seconds.

Headers are checked through the .cc file beside them. A file is some 20 s of processor time, so that the budget may not
reach to all of them: the last line says how many were left out. Needs build/release/compile_commands.json: ./dev build.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import time

from source_tree import ROOT

BUILT = ROOT / "build/release/compile_commands.json"
DATABASE = ROOT / "build/tidy"
# What is GCC's alone: its precompiled headers and the launcher. A file is checked with the headers that it names.
GCC_ONLY = re.compile(r"^\S*ccache | -Winvalid-pch| -fpch-preprocess| -include \S+")


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


def split(entry):
    """Lists what a command compiles: the file that it names, or those that CMake put together in it (a unity build)."""
    file = pathlib.Path(entry["file"])
    if not file.name.startswith("unity_"):
        return [entry]
    parts = re.findall(r'^#include "(.*)"$', file.read_text(), re.MULTILINE)
    return [entry | {"file": part, "command": entry["command"].replace(str(file), part)} for part in parts]


def write_database():
    """Writes the commands of the build as clang understands them; returns the sources that they compile."""
    entries = [single for entry in json.loads(BUILT.read_text()) for single in split(entry)]
    # <omp.h> is a compiler's own. GCC's serves, behind everything else and without the attribute that names a deleter.
    headers = subprocess.run(["g++", "-print-file-name=include"], capture_output=True, text=True, check=True)
    for entry in entries:
        command = GCC_ONLY.sub("", entry["command"])
        entry["command"] = f"{command} -idirafter {headers.stdout.strip()} '-D__malloc__(...)=__malloc__'"
    DATABASE.mkdir(exist_ok=True)
    (DATABASE / "compile_commands.json").write_text(json.dumps(entries))
    return {os.path.relpath(entry["file"], ROOT) for entry in entries}


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
    parser.add_argument("--commits", type=int, default=20, help="look at so many last commits (default 20)")
    parser.add_argument("--seconds", type=int, default=240, help="stop after so many seconds (default 240)")
    arguments = parser.parse_args()
    if not BUILT.is_file():
        print(f"{BUILT.relative_to(ROOT)} is missing; run ./dev build")
        return 1
    compiled = write_database()
    paths = [os.path.relpath(path, ROOT) for path in arguments.paths]
    sources = compiled_sources(paths or changed_paths(arguments.commits), compiled)
    started = time.monotonic()
    deadline = started + arguments.seconds
    with concurrent.futures.ThreadPoolExecutor(os.process_cpu_count()) as pool:
        results = list(pool.map(lambda source: tidy(source, deadline), sources))
    for _, findings in results:
        if findings:
            print(findings)
    late = [source for source, findings in results if findings is None]
    failed = sum(bool(findings) for _, findings in results)
    print(
        f"clang-tidy: {len(results) - len(late)} of {len(sources)} changed files checked in "
        f"{time.monotonic() - started:.0f} s, {failed} with findings"
        + (f"; {len(late)} older changes left out, there was no time" if late else "")
    )
    if sources and len(late) == len(sources):
        print(f"clang-tidy: {arguments.seconds} s were not enough for a single file")
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
