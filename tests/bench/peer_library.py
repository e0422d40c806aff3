"""ONNX Runtime as the peer: its C library, and the small program that drives it."""

import glob
import hashlib
import pathlib
import platform
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import npm_packages  # noqa: E402  # found only now

HEADERS = pathlib.Path("/usr/include/onnxruntime")
MACHINES = {"x86_64": "x64", "aarch64": "arm64"}


def compiled(cache):
    """Returns the peer's program, compiled unless an earlier run did."""
    source = HERE / "peer.cc"
    program = cache / f"peer-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if not program.is_file():
        making = program.with_suffix(".making")
        command = ["g++", "-std=c++20", "-O2", "-Wall", "-Wextra", f"-I{HEADERS}", str(source), "-o", str(making), "-ldl"]
        subprocess.run(command, check=True)
        making.rename(program)
    return program


def from_npm(cache):
    """Returns (library, None), or (None, why there is none)."""
    folder = cache / "onnxruntime"
    unreachable = npm_packages.install(HERE / "onnxruntime", folder)
    if unreachable:
        return None, unreachable
    machine = MACHINES.get(platform.machine(), platform.machine())
    found = glob.glob(f"{folder}/node_modules/onnxruntime-node/bin/*/linux/{machine}/libonnxruntime.so.*")
    return (pathlib.Path(found[0]), None) if found else (None, f"the package has no library for {machine}")


def from_debian():
    """Returns Debian's library, or None."""
    found = sorted(glob.glob("/usr/lib/*/libonnxruntime.so.*"))
    return pathlib.Path(found[-1]) if found else None


def find(choice, cache, say):
    """Returns (program, library) of the peer, or None. choice: npm (Debian's where that cannot be had), debian, none."""
    if choice == "none":
        return None
    if not (HEADERS / "onnxruntime_cxx_api.h").is_file():
        say("no peer: libonnxruntime-dev is not installed; ./dev bench installs it")
        return None
    library = None
    if choice == "npm":
        library, why = from_npm(cache)
        if why:
            say(f"no ONNX Runtime from npm: {why}")
    library = library or from_debian()
    if not library:
        say("no peer: there is no library of ONNX Runtime")
        return None
    return compiled(cache), library
