#!/usr/bin/env python3
"""Shows each lint catching what it is there for, and passing what it should pass."""

import pathlib
import tempfile
import unittest

import ctest_list
import includes
import sizes
import words

Path = pathlib.PurePosixPath


class IncludesTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        for header in [
            "engine/engine.h",
            "engine/tensor/dtype.h",
            "engine/graph/graph.h",
            "engine/onednn/isa.h",
            "engine/plan/plan.h",
            "server/rpc/service.h",
            "server/scheduling/queue.h",
            "config/config.h",
        ]:
            (self.root / header).parent.mkdir(parents=True, exist_ok=True)
            (self.root / header).touch()

    def message(self, path, include):
        return includes.check_line(path, f"#include {include}", self.root)

    def assert_fails(self, path, include, reason):
        self.assertRegex(self.message(path, include) or "passed", reason)

    def assert_passes(self, path, include):
        self.assertIsNone(self.message(path, include))

    def test_arrows_point_down(self):
        self.assert_passes("engine/graph/graph.cc", '"engine/tensor/dtype.h"')
        self.assert_passes("engine/plan/plan.cc", '"engine/onednn/isa.h"')
        self.assert_fails("engine/tensor/dtype.cc", '"engine/graph/graph.h"', "engine/tensor may not include")
        self.assert_fails("engine/passes/fuse.cc", '"engine/plan/plan.h"', "engine/passes may not include")
        self.assert_fails("engine/passes/fuse.cc", '"engine/onednn/isa.h"', "engine/passes may not include")
        self.assert_fails("engine/ops/conv.cc", '"engine/engine.h"', "engine/ops may not include")

    def test_engine_is_seen_through_one_header(self):
        self.assert_passes("server/scheduling/worker.cc", '"engine/engine.h"')
        self.assert_passes("cli/inspect.cc", '"engine/engine.h"')
        self.assert_fails("server/scheduling/worker.cc", '"engine/plan/plan.h"', "server/scheduling may not")
        self.assert_fails("cli/inspect.cc", '"engine/graph/graph.h"', "cli may not include")
        self.assert_fails("engine/ops/conv.cc", '"server/rpc/service.h"', "engine/ops may not include")
        self.assert_fails("server/scheduling/queue.cc", '"server/rpc/service.h"', "may not include")

    def test_third_parties_have_one_home(self):
        self.assert_passes("engine/onednn/memory.h", '"oneapi/dnnl/dnnl.hpp"')
        self.assert_fails("engine/ops/conv.cc", '"oneapi/dnnl/dnnl.hpp"', "oneDNN may be included by")
        self.assert_fails("engine/plan/plan.cc", "<dnnl.hpp>", "oneDNN may be included by")
        self.assert_fails("engine/graph/graph.cc", '"onnx/onnx_pb.h"', "ONNX may be included by")
        self.assert_fails("server/http/metrics.cc", '"prometheus/registry.h"', "Prometheus may be")
        self.assert_fails("server/server.cc", "<yaml-cpp/yaml.h>", "yaml-cpp may be included by config")
        self.assert_fails("engine/plan/plan.cc", "<gtest/gtest.h>", "GoogleTest may be")

    def test_grpc_stays_at_the_edge(self):
        self.assert_passes("server/rpc/service.cc", "<grpcpp/grpcpp.h>")
        self.assert_passes("server/main.cc", "<grpcpp/grpcpp.h>")
        self.assert_passes("cli/load.cc", '"proto/inference.grpc.pb.h"')
        self.assert_fails("server/routing/split.cc", "<grpcpp/grpcpp.h>", "gRPC may be included by")
        self.assert_fails("server/routing/split.cc", '"proto/inference.pb.h"', "server/routing may not")

    def test_paths_start_at_the_root(self):
        self.assert_fails("engine/graph/graph.cc", '"graph.h"', "not relative to the root")
        self.assert_fails("engine/graph/graph.cc", '"../tensor/dtype.h"', "climbs")
        self.assert_fails("engine/graph/graph.cc", "<engine/tensor/dtype.h>", "in quotes")

    def test_new_folder_needs_a_row(self):
        self.assert_fails("client/client.cc", "<vector>", "has no row")
        self.assert_passes("tests/unit/engine/plan/plan_test.cc", '"engine/plan/plan.h"')

    def test_cycle_of_headers(self):
        self.assertIsNone(includes.find_cycle({"a.h": ["b.h", "c.h"], "b.h": ["c.h"], "c.h": []}))
        self.assertEqual(includes.find_cycle({"x.cc": ["a.h"], "a.h": ["b.h"], "b.h": ["a.h"]}), ["a.h", "b.h", "a.h"])

    def test_engine_table_has_no_cycle(self):
        def reach(row, seen):
            self.assertNotIn(row, seen, " -> ".join([*seen, row]))
            for target in includes.OURS.get(row, []):
                if target.startswith("engine/") and not target.endswith(".h"):
                    reach(target, [*seen, row])

        for row in includes.OURS:
            reach(row, [])


class SizesTest(unittest.TestCase):
    def messages(self, name, lines):
        return [violation.message for violation in sizes.check_file(Path(name), lines)]

    def test_long_file(self):
        self.assertEqual(self.messages("a.cc", ["x"] * sizes.MAX_FILE_LINES), [])
        self.assertRegex(self.messages("a.cc", ["x"] * (sizes.MAX_FILE_LINES + 1))[0], "801 lines")

    def test_long_cpp_function(self):
        body = ["  x();"] * sizes.MAX_FUNCTION_LINES
        self.assertRegex(self.messages("a.cc", ["namespace a {", "void F() {", *body, "}"])[0], "102 lines")
        self.assertEqual(self.messages("a.cc", ["namespace a {", *body, "}  // namespace a"]), [])
        self.assertEqual(self.messages("a.cc", ["const Row kRows[] = {", *body, "};"]), [])
        self.assertEqual(self.messages("a.cc", ["void F() {", *body[:50], "}"] * 2), [])

    def test_long_python_function(self):
        body = ["    x()"] * sizes.MAX_FUNCTION_LINES
        self.assertRegex(self.messages("a.py", ["def f():", *body])[0], "a function of 101 lines")
        self.assertRegex(self.messages("a.py", ["def f(:"])[0], "not Python")


class CtestListTest(unittest.TestCase):
    def messages(self, labels, timeout):
        properties = [{"name": "LABELS", "value": labels}, {"name": "TIMEOUT", "value": timeout}]
        return list(ctest_list.violations([{"name": "e2e.load", "properties": properties}]))

    def test_label_and_time_limit(self):
        self.assertEqual(self.messages(["e2e"], 300.0), [])
        self.assertRegex(self.messages(["e2e", "fault"], 300.0)[0], "^e2e.load: labels are")
        self.assertRegex(self.messages(["slow"], 300.0)[0], "labels are")
        self.assertRegex(self.messages(["e2e"], 1500.0)[0], "TIMEOUT is 1500.0")
        unset = list(ctest_list.violations([{"name": "x"}]))
        self.assertEqual(len(unset), 2)
        self.assertIn("TIMEOUT is not set", unset[1])


class WordsTest(unittest.TestCase):
    def test_empty_names(self):
        for name in ["engine/utils.h", "server/helpers/x.cc", "common.py", "engine/misc_test.cc"]:
            self.assertTrue(words.check_name(Path(name)), name)
        self.assertFalse(words.check_name(Path("engine/tensor/commonality.h")))

    def test_text(self):
        mirror = "deb" + ".debian.org"
        for line in ["// TO" + "DO: later", "FIX" + "ME", f"http://{mirror}/debian", "cd /wo" + "rk/main"]:
            self.assertTrue(words.check_text(Path("a.cc"), [line]), line)
        for line in ["mktemp making-XXXXXX", "build/work/x", "$HOME/work/x", "https://www.debian.org/"]:
            self.assertFalse(words.check_text(Path("a.cc"), [line]), line)


if __name__ == "__main__":
    unittest.main()
