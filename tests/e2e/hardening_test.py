#!/usr/bin/env python3
"""The binary is built as a server that strangers reach is to be: what the linker and the compiler can forbid, they forbid.

The list is that of Debian's hardening-check(1): position-independent, relocations read-only before main, no executable stack,
canaries in functions with buffers, bounds of known objects checked by the C library.

usage: hardening_test.py OCTET
"""

import re
import subprocess
import sys
import unittest


def readelf(*words):
    return subprocess.run(["readelf", "--wide", *words, OCTET], capture_output=True, text=True, check=True).stdout


class Hardening(unittest.TestCase):
    def test_position_independent(self):
        self.assertRegex(readelf("--file-header"), r"Type:\s+DYN \(Position-Independent Executable file\)")

    def test_relocations_are_read_only_before_main(self):
        self.assertIn("GNU_RELRO", readelf("--program-headers"))
        self.assertRegex(readelf("--dynamic"), r"FLAGS_1\).*\bNOW\b")

    def test_no_stack_is_executable_and_no_segment_both_writable_and_executable(self):
        segments = re.findall(r"^\s+(\w+)\s+0x\w+ 0x\w+ 0x\w+ 0x\w+ 0x\w+ ([R ][W ][E ])", readelf("--program-headers"), re.M)
        self.assertIn("GNU_STACK", [name for name, _ in segments])
        self.assertEqual([], [name for name, flags in segments if "W" in flags and "E" in flags])

    def test_functions_with_buffers_have_canaries_and_known_bounds_are_checked(self):
        symbols = readelf("--dyn-syms")
        self.assertIn("__stack_chk_fail", symbols)
        self.assertRegex(symbols, r"__(mem\w+|snprintf|vsnprintf|read)_chk\b")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
