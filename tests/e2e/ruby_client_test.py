#!/usr/bin/env python3
"""Asks `octet serve` with Debian's Ruby gRPC client, its stubs made by protoc as its documentation says.

usage: ruby_client_test.py OCTET
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

import served_models

CLIENT = pathlib.Path(__file__).resolve().parent / "ruby/client.rb"


def main():
    octet = sys.argv[1]
    images, truth = served_models.load_test_set()
    with tempfile.TemporaryDirectory() as scratch:
        image = pathlib.Path(scratch, "image")
        image.write_bytes(images[0].tobytes())
        stubs = pathlib.Path(scratch, "stubs")
        stubs.mkdir()
        plugin = f"--plugin=protoc-gen-grpc={shutil.which('grpc_ruby_plugin')}"
        words = [f"-I{served_models.ROOT / 'proto'}", f"--ruby_out={stubs}", f"--grpc_out={stubs}", "inference.proto"]
        subprocess.run(["protoc", plugin, *words], check=True, timeout=60)
        with served_models.serve(octet, scratch) as server:
            arguments = [server.grpc, image, served_models.LABELS[truth[0]], served_models.GLYPHS / "labels.txt"]
            done = subprocess.run(["ruby", "-I", stubs, CLIENT, *arguments], timeout=120)
            if done.returncode != 0:
                print(server.last_words(), file=sys.stderr)
                return 1
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
