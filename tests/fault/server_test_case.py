"""A test that starts servers over a folder of models."""

import pathlib
import sys
import tempfile
import time
import unittest

from small_models import server

OCTET = ""


class ServerTestCase(unittest.TestCase):
    """`models` is an empty repository in `folder`; both, and the servers, end with the test."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.models = self.folder / "models"
        self.models.mkdir()

    def start(self, configuration="", listen=""):
        """Returns a server that serves; `listen`: further keys of that section."""
        started = server.Server(octet(), self.models, self.folder, configuration, listen)
        self.addCleanup(started.__exit__, None, None, None)
        return started

    def wait_until(self, holds, what):
        """Waits until holds() is true; fails, with `what` was waited for, when it is not in 20 seconds."""
        until = time.monotonic() + 20
        while not holds():
            self.assertLess(time.monotonic(), until, f"never seen: {what}")
            time.sleep(0.02)

    def wait_for_metric(self, running, line):
        self.wait_until(lambda: f"\n{line}\n" in running.metrics_page(), line)

    def wait_for_capture(self, folder):
        self.wait_until(lambda: list(folder.rglob("*.npz")), f"a capture in {folder}")


def octet():
    """Returns the path of the executable."""
    return OCTET


def main():
    """Runs the tests of the script that calls it, whose first argument is the executable."""
    global OCTET
    OCTET = sys.argv.pop(1)
    unittest.main(module="__main__", verbosity=2)
