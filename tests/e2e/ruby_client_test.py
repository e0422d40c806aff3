#!/usr/bin/env python3
"""Asks `octet serve` with Debian's Ruby gRPC client, its stubs made by protoc as its documentation says.

usage: ruby_client_test.py OCTET
"""

import pathlib
import shutil
import subprocess
import sys

import served_models

CLIENT = pathlib.Path(__file__).resolve().parent / "ruby/client.rb"


def command(folder, target, image, label):
    stubs = folder / "stubs"
    stubs.mkdir()
    plugin = f"--plugin=protoc-gen-grpc={shutil.which('grpc_ruby_plugin')}"
    words = [f"-I{served_models.ROOT / 'proto'}", f"--ruby_out={stubs}", f"--grpc_out={stubs}", "inference.proto"]
    subprocess.run(["protoc", plugin, *words], check=True, timeout=60)
    return ["ruby", "-I", stubs, CLIENT, target, image, label, served_models.GLYPHS / "labels.txt"]


if __name__ == "__main__":
    sys.exit(served_models.run_client(sys.argv[1], command))
