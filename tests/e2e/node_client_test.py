#!/usr/bin/env python3
"""Calls every RPC of `octet serve` with node's @grpc/grpc-js, in the versions of node/package-lock.json.

usage: node_client_test.py OCTET FOLDER    FOLDER: where its packages are installed, and kept for the next run

Ends with 77, and one line that says so, where the packages cannot be downloaded.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

import served_models

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import npm_packages  # noqa: E402  # found only now

CLIENT = pathlib.Path(__file__).resolve().parent / "node"
SKIPPED = 77


def main():
    octet, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    unreachable = npm_packages.install(CLIENT, folder)
    if unreachable:
        print(f"skipped: {unreachable}")
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
