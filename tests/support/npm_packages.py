"""Installs the packages of a lock file with npm, once."""

import re
import shutil
import subprocess

FILES = ("package.json", "package-lock.json", ".npmrc")
# A machine without a network, or one whose proxy lets nothing through or answers in the registry's place.
NO_NETWORK = re.compile(
    r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ERR_SOCKET_TIMEOUT|E403|E407|E50[234]"
    r"|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_GET_ISSUER_CERT_LOCALLY|UNABLE_TO_VERIFY_LEAF_SIGNATURE)\b"
)


def install(source, folder, seconds=240):
    """Installs what `source` locks into `folder`, unless the last call did; no script of a package runs. Returns None, or
    one line that says why the packages cannot be downloaded here, or not in that many seconds. Raises RuntimeError when
    npm fails otherwise."""
    lock = (source / "package-lock.json").read_bytes()
    stamp = folder / "installed"
    if stamp.is_file() and stamp.read_bytes() == lock:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(source / name, folder)
    command = ["npm", "ci", "--ignore-scripts"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"the packages cannot be downloaded here (not in {seconds} s)"
    if done.returncode == 0:
        stamp.write_bytes(lock)
        return None
    unreachable = NO_NETWORK.search(done.stdout + done.stderr)
    if unreachable is None:
        raise RuntimeError(f"npm ci failed: {done.stderr}")
    return f"the packages cannot be downloaded here ({unreachable.group()})"
