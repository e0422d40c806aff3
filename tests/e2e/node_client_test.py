#!/usr/bin/env python3
"""Calls every RPC of `octet serve` with node's @grpc/grpc-js, in the versions of node/package-lock.json.

usage: node_client_test.py OCTET FOLDER    FOLDER: where its packages are installed, and kept for the next run

Ends with 77, and one line that says so, where the packages cannot be downloaded.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import served_models

CLIENT = pathlib.Path(__file__).resolve().parent / "node"
FILES = ("package.json", "package-lock.json", ".npmrc")
NO_NETWORK = re.compile(r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|E403|E407)\b")
SKIPPED = 77


def install(folder):
    """Installs the locked packages, unless the last run did. Returns False when there is no way to get them."""
    lock = (CLIENT / "package-lock.json").read_bytes()
    stamp = folder / "installed"
    if stamp.is_file() and stamp.read_bytes() == lock:
        return True
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(CLIENT / name, folder)
    done = subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=folder, capture_output=True, text=True, timeout=240)
    if done.returncode == 0:
        stamp.write_bytes(lock)
        return True
    unreachable = NO_NETWORK.search(done.stdout + done.stderr)
    if unreachable is None:
        sys.exit(f"npm ci failed: {done.stderr}")
    print(f"skipped: the packages cannot be downloaded here ({unreachable.group()})")
    return False


def main():
    octet, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    if not install(folder):
        return SKIPPED
    shutil.copy(CLIENT / "client.mjs", folder)
    images, truth = served_models.load_test_set()
    with tempfile.TemporaryDirectory() as scratch:
        image = pathlib.Path(scratch, "image")
        image.write_bytes(images[0].tobytes())
        with served_models.serve(octet, scratch) as server:
            command = ["node", folder / "client.mjs", server.grpc, served_models.ROOT, image, served_models.LABELS[truth[0]]]
            done = subprocess.run(command, timeout=120)
            if done.returncode != 0:
                print(server.last_words(), file=sys.stderr)
                return 1
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
