"""A test that starts servers over a folder of models."""

import pathlib
import sys
import tempfile
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

    def start(self, configuration=""):
        """Returns a server that serves."""
        started = server.Server(octet(), self.models, self.folder, configuration)
        self.addCleanup(started.__exit__, None, None, None)
        return started


def octet():
    """Returns the path of the executable."""
    return OCTET


def main():
    """Runs the tests of the script that calls it, whose first argument is the executable."""
    global OCTET
    OCTET = sys.argv.pop(1)
    unittest.main(module="__main__", verbosity=2)
