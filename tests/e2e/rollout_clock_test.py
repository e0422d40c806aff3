#!/usr/bin/env python3
"""Sets the clock under a rollout: a stage is held neither shorter nor longer for it, and nobody's patience ends.

usage: rollout_clock_test.py OCTET CLOCK_SHIFT
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest

import served_glyphs
import served_models
from rollout_case import RolloutCase, Traffic
from served_glyphs import Served

OCTET = ""
CLOCK_SHIFT = ""
CALIBRATION = served_models.ROOT / "demo/data/calibration.npz"
HOUR = 3600


def setUpModule():
    served_glyphs.set_up()


def tearDownModule():
    served_glyphs.tear_down()


class RolloutClockTest(RolloutCase):
    octet = property(lambda self: OCTET)

    def start(self, served, shift, *words):
        environment = os.environ | {"LD_PRELOAD": CLOCK_SHIFT, "OCTET_CLOCK_SHIFT": str(shift)}
        return subprocess.Popen(self.command(served, *words), stdout=subprocess.PIPE, text=True, env=environment)

    def test_a_stage_is_held_by_a_steady_clock_and_another_process_goes_on_by_the_time_of_day(self):
        shift = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) / "shift"
        shift.write_text("0")
        words = ["--calibration", CALIBRATION, "--hold-seconds", "600", "--patience-seconds", str(HOUR)]
        with Served(OCTET, "routing: {default: fp32}\n", lambda version: (version / "int8.onnx").unlink()) as served, Traffic(served):
            with self.start(served, shift, *words) as process:
                self.wait_for_line(process, "shadow")
                self.wait_for_event(served, process, "shadow")
                while not re.fullmatch(r"  \d+ of 600 seconds held\n", line := process.stdout.readline()):
                    self.assertTrue(line, "it ended before all but the time was there")
                for hours in (2, -2):
                    shift.write_text(str(hours * HOUR))
                    time.sleep(3)  # Six looks.
                    self.assertIsNone(process.poll())
                    self.assertEqual(self.events(served)[-1], "shadow")
                process.kill()
            shift.write_text(str(HOUR // 2))
            with self.start(served, shift) as process:
                self.wait_for_line(process, "ramp to 20 %")
                process.kill()
            self.assertEqual(self.rollout(served, "--abort")[0], 0)


if __name__ == "__main__":
    OCTET, CLOCK_SHIFT = sys.argv.pop(1), sys.argv.pop(1)
    unittest.main(verbosity=2)
