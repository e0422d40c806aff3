"""Installs the packages of a lock file with npm, once."""

import re
import shutil
import subprocess

FILES = ("package.json", "package-lock.json", ".npmrc")
NO_NETWORK = re.compile(r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|E403|E407)\b")


def install(source, folder):
    """Installs what `source` locks into `folder`, unless the last call did; no script of a package runs. Returns None, or
    one line that says why the packages cannot be downloaded here. Raises RuntimeError when npm fails otherwise."""
    lock = (source / "package-lock.json").read_bytes()
    stamp = folder / "installed"
    if stamp.is_file() and stamp.read_bytes() == lock:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(source / name, folder)
    done = subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=folder, capture_output=True, text=True, timeout=240)
    if done.returncode == 0:
        stamp.write_bytes(lock)
        return None
    unreachable = NO_NETWORK.search(done.stdout + done.stderr)
    if unreachable is None:
        raise RuntimeError(f"npm ci failed: {done.stderr}")
    return f"the packages cannot be downloaded here ({unreachable.group()})"
