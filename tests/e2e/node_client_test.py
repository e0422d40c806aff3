#!/usr/bin/env python3
"""Calls every RPC of `octet serve` with node's @grpc/grpc-js, in the versions of node/package-lock.json.

usage: node_client_test.py OCTET FOLDER    FOLDER: where its packages are installed, and kept for the next run

Ends with 77, and one line that says so, where the packages cannot be downloaded.
"""

import pathlib
import shutil
import sys

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

    def command(_, target, image, label):
        return ["node", folder / "client.mjs", target, served_models.ROOT, image, label]

    return served_models.run_client(octet, command)


if __name__ == "__main__":
    sys.exit(main())
