#!/usr/bin/env python3
"""Installs packages with programs that stand for npm: what counts as no network, and what as a failure."""

import os
import pathlib
import sys
import tempfile
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
import npm_packages  # noqa: E402  # found only now

SOURCE = ROOT / "tests/e2e/node"


class NpmPackagesTest(unittest.TestCase):
    def setUp(self):
        self.scratch = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.folder = self.scratch / "packages"
        path = f"{self.scratch}:{os.environ['PATH']}"
        self.enterContext(unittest.mock.patch.dict(os.environ, {"PATH": path}))

    def install(self, script, **options):
        """Installs with this script in the place of npm."""
        npm = self.scratch / "npm"
        npm.write_text(f"#!/bin/sh\n{script}\n")
        npm.chmod(0o755)
        return npm_packages.install(SOURCE, self.folder, **options)

    def test_packages_are_installed_once(self):
        self.assertIsNone(self.install("echo run >> runs"))
        self.assertIsNone(self.install("exit 1"))
        self.assertEqual((self.folder / "runs").read_text(), "run\n")
        for name in npm_packages.FILES:
            self.assertTrue((self.folder / name).is_file(), name)

    def test_a_machine_without_network_is_said_in_one_line(self):
        for code in ("ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "ERR_SOCKET_TIMEOUT", "E403", "E503", "SELF_SIGNED_CERT_IN_CHAIN"):
            said = self.install(f"echo npm error code {code} >&2; exit 1")
            self.assertEqual(said, f"the packages cannot be downloaded here ({code})")

    def test_a_network_that_swallows_packets_too(self):
        # exec: nothing may outlive the process that is ended.
        self.assertEqual(self.install("exec sleep 60", seconds=0.2), "the packages cannot be downloaded here (not in 0.2 s)")

    def test_what_failed_is_tried_again(self):
        self.assertIsNotNone(self.install("echo npm error code E503 >&2; exit 1"))
        self.assertIsNone(self.install("exit 0"))

    def test_other_failures_are_failures(self):
        with self.assertRaisesRegex(RuntimeError, "code EINTEGRITY"):
            self.install("echo npm error code EINTEGRITY >&2; exit 1")

    def test_npm_itself_gives_up_soon(self):
        settings = (SOURCE / ".npmrc").read_text().split()
        self.assertIn("fetch-timeout=20000", settings)
        self.assertIn("fetch-retries=0", settings)


if __name__ == "__main__":
    unittest.main()
