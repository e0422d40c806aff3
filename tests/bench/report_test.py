#!/usr/bin/env python3
"""Tests what the rounds of two sides are made into: statistics, table and plot."""

import json
import math
import pathlib
import tempfile
import unittest
import xml.etree.ElementTree

import report
import rounds

SVG = "{http://www.w3.org/2000/svg}"


def turns(*times):
    """Rounds of one side, each (shortest, median) in milliseconds."""
    return [{"latency_ms": {"min": low, "p50": middle}} for low, middle in times]


def row(model="net", precision="fp32", ratio=1.5, cosine=1.0, peer_cosine=1.0, batch=1, threads=1):
    return {
        "model": model,
        "precision": precision,
        "batch": batch,
        "threads": threads,
        "octet": {"min_ms": 1.0, "median_ms": 1.1, "ready_ms": 30.0, "peak_bytes": 20e6},
        "peer": {"min_ms": 1.6, "median_ms": 1.7, "ready_ms": 50.0, "peak_bytes": 40e6},
        "ratio": {"median": ratio, "low": ratio - 0.1, "high": ratio + 0.2, "rounds": [ratio]},
        "primitive_sum_ms": 0.8,
        "whole_to_primitives": 1.25,
        "whole_to_primitives_in_place": 1.05,
        "memory": {"weights_bytes": 4e6, "arena_bytes": 1.1e6, "live_peak_bytes": 1e6},
        "macs_per_second": 3e10,
        "peak_macs_per_second": 6e10,
        "cosine": {"octet": cosine, "peer": peer_cosine},
    }


def result(*rows):
    return {"machine": "2 x Chip", "octet": "0.1", "peer": "1.30.0", "rows": list(rows)}


class RoundsTest(unittest.TestCase):
    def test_a_side_is_its_shortest_time_and_the_median_of_the_rounds(self):
        self.assertEqual(rounds.summarize(turns((3, 4), (1, 9), (2, 5))), {"min_ms": 1, "median_ms": 5})

    def test_the_ratio_is_of_pairs_and_not_of_the_sides(self):
        # The machine slows down threefold: every pair says 2, the medians of the sides say 2 as well only by pairs.
        octet, peer = turns((1, 1), (1, 1), (3, 3)), turns((2, 2), (6, 6), (6, 6))
        compared = rounds.compare(octet, peer)
        self.assertEqual(compared["rounds"], [2, 6, 2])
        self.assertEqual(compared["median"], 2)
        self.assertEqual((compared["low"], compared["high"]), (2, 4))

    def test_a_round_that_one_side_lacks_is_an_error(self):
        with self.assertRaises(ValueError):
            rounds.compare(turns((1, 1)), turns((1, 1), (1, 1)))

    def test_quartiles(self):
        self.assertEqual(rounds.quartiles([4, 1, 3, 2, 5]), (2, 4))
        self.assertEqual(rounds.quartiles([1, 2]), (1.25, 1.75))
        self.assertEqual(rounds.quartiles([7]), (7, 7))

    def test_geometric_mean(self):
        self.assertAlmostEqual(rounds.geometric_mean([2, 0.5, 8]), 2)


class AgreementTest(unittest.TestCase):
    def test_random_weights_may_carry_an_error_farther(self):
        far = row(precision="int8", cosine=0.85, peer_cosine=0.8)
        self.assertTrue(report.is_wrong(far))
        random = {**far, "random_weights": True}
        self.assertFalse(report.is_wrong(random))
        self.assertTrue(report.counts(random))
        self.assertTrue(report.is_wrong({**random, "cosine": {"octet": 0.7, "peer": 0.8}}))

    def test_equal_answers(self):
        self.assertEqual(rounds.agreement({"a": [1, 2]}, {"b": [1, 2]}), (1, 0))
        self.assertEqual(rounds.agreement({"a": [0, 0]}, {"a": [0, 0]}), (1, 0))

    def test_the_worst_output_counts(self):
        cosine, distance = rounds.agreement({"a": [1, 2], "b": [0, 1]}, {"a": [1, 2], "b": [4, 0]})
        self.assertEqual((cosine, distance), (0, 1))

    def test_not_a_number_never_agrees(self):
        self.assertTrue(math.isnan(rounds.agreement({"a": [1, None]}, {"a": [1, 2]})[0]))
        self.assertTrue(report.is_wrong(row(cosine=math.nan)))

    def test_other_sizes_are_an_error(self):
        with self.assertRaisesRegex(ValueError, "output a has 1 elements, expected 2"):
            rounds.agreement({"a": [1]}, {"a": [1, 2]})
        with self.assertRaises(ValueError):
            rounds.agreement({"a": [1]}, {"a": [1], "b": [1]})

    def test_a_wrong_answer_is_wrong_in_any_precision(self):
        for precision, good, bad in (("fp32", 0.99995, 0.999), ("bf16", 0.995, 0.98), ("int8", 0.985, 0.97)):
            self.assertFalse(report.is_wrong(row(precision=precision, cosine=good)), precision)
            self.assertTrue(report.is_wrong(row(precision=precision, cosine=bad)), precision)

    def test_int8_may_be_as_far_away_as_the_peers(self):
        self.assertFalse(report.is_wrong(row(precision="int8", cosine=0.91, peer_cosine=0.915)))
        self.assertTrue(report.is_wrong(row(precision="int8", cosine=0.93, peer_cosine=0.945)))
        self.assertTrue(report.is_wrong(row(precision="int8", cosine=0.5, peer_cosine=0.1)))

    def test_a_ratio_counts_between_two_useful_answers(self):
        self.assertTrue(report.counts(row(precision="int8", cosine=0.99, peer_cosine=0.92)))
        self.assertFalse(report.counts(row(precision="int8", cosine=0.99, peer_cosine=0.5)))
        self.assertFalse(report.counts(row(precision="int8", cosine=0.5, peer_cosine=0.5)))


class TableTest(unittest.TestCase):
    def test_rows_stand_in_the_group_of_their_configuration(self):
        lines = report.table(result(row("a"), row("b"), row("a", "int8"), row("a", batch=8, threads=2)))
        titles = [line for line in lines if line.startswith(("fp32,", "int8,"))]
        self.assertEqual(titles, ["fp32, batch 1, 1 thread", "int8, batch 1, 1 thread", "fp32, batch 8, 2 threads"])
        self.assertIn("1.000, 1.100", "\n".join(lines))
        self.assertIn("1.50 (1.40 to 1.70)", "\n".join(lines))

    def test_a_row_says_its_share_of_the_peak_and_its_gain_over_fp32(self):
        quantized = {**row(precision="int8"), "fp32_ratio": {"median": 3.5, "low": 3.25, "high": 3.75}}
        cells = [cell.strip() for cell in self.line(quantized, "1.000, 1.100").strip("|").split("|")]
        self.assertEqual(cells[report.HEADS.index("of peak")], "50%")
        self.assertEqual(cells[report.HEADS.index("fp32 / this")], "3.50 (3.25 to 3.75)")

    def test_a_row_says_what_it_takes_in_memory(self):
        cells = [cell.strip() for cell in self.line(row("net"), "4.00").strip("|").split("|")]
        self.assertEqual(cells, ["net", "4.00", "1.10", "1.10", "20, 40", "30, 50"])

    def line(self, measured, words):
        (line,) = [line for line in report.table(result(measured)) if words in line]
        return line

    def test_where_octet_is_slower_is_said_slowest_first(self):
        self.assertEqual(
            report.summary([row("a", ratio=0.9), row("b", ratio=2), row("c", ratio=0.5)]),
            "Geometric mean of 3 ratios: 0.97. Octet is slower on c 0.50, a 0.90.",
        )
        self.assertEqual(report.summary([row(ratio=2)]), "Geometric mean of 1 ratios: 2.00. Octet is slower on none.")

    def test_a_wrong_answer_wins_nothing(self):
        fast_and_wrong = row("b", ratio=100, cosine=0.5)
        self.assertIn("Geometric mean of 1 ratios: 2.00.", report.summary([row("a", ratio=2), fast_and_wrong]))
        self.assertIn("0.5000, 1.0000 wrong answer", "\n".join(report.table(result(fast_and_wrong))))
        self.assertIsNone(report.summary([fast_and_wrong]))

    def test_the_overview_has_a_row_per_model_and_a_mean_per_column(self):
        lines = report.overview([row("a", ratio=2), row("b", ratio=0.5), row("a", "int8", ratio=4), row("b", "int8", cosine=0)])
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        self.assertEqual(cells[0][1:], ["fp32, batch 1, 1 thread", "int8, batch 1, 1 thread"])
        self.assertEqual(cells[2:], [["a", "2.00", "4.00"], ["b", "0.50", ""], ["geometric mean", "1.00", "4.00"]])

    def test_what_fails_is_shown(self):
        error = {"model": "net", "precision": "fp32", "batch": 1, "threads": 1, "error": "octet: no such operator"}
        self.assertIn("octet: no such operator", "\n".join(report.table(result(error))))

    def test_octet_alone_has_a_table(self):
        alone = row()
        for key in ("peer", "ratio", "cosine"):
            del alone[key]
        lines = report.table({**result(alone), "peer": None})
        self.assertIn("ONNX Runtime not there", lines[0])
        self.assertIn("0.800", "\n".join(lines))


class PlotTest(unittest.TestCase):
    def shapes(self, *rows):
        return xml.etree.ElementTree.fromstring(report.plot(result(*rows)))

    def test_a_bar_is_as_long_as_its_ratio(self):
        bars = self.shapes(row("a", ratio=2), row("b", ratio=0.5)).findall(f"{SVG}rect")[1:]
        fast, slow = (float(bar.get("width")) for bar in bars)
        self.assertAlmostEqual(fast, 4 * slow, delta=0.2)
        self.assertNotEqual(bars[0].get("fill"), bars[1].get("fill"))

    def test_nothing_leaves_the_picture(self):
        picture = self.shapes(*(row(f"net{i}", ratio=0.5 + i) for i in range(12)), row("last", "int8"))
        width, height = float(picture.get("width")), float(picture.get("height"))
        for shape in picture.iter():
            for key, most in (("x", width), ("x1", width), ("x2", width), ("y", height), ("y1", height), ("y2", height)):
                self.assertLessEqual(float(shape.get(key, 0)), most)

    def test_names_are_text(self):
        words = [text.text for text in self.shapes(row("a<b>&c")).findall(f"{SVG}text")]
        self.assertIn("a<b>&c", words)

    def test_without_a_ratio_there_is_no_plot(self):
        alone = row()
        del alone["ratio"]
        self.assertIsNone(report.plot(result(alone)))

    def test_files(self):
        with tempfile.TemporaryDirectory() as folder:
            report.write(result(row()), pathlib.Path(folder, "new"))
            self.assertEqual(json.loads(pathlib.Path(folder, "new/results.json").read_text())["rows"][0]["model"], "net")
            self.assertTrue(pathlib.Path(folder, "new/table.md").read_text().endswith(".\n"))
            self.assertTrue(pathlib.Path(folder, "new/ratios.svg").read_text().startswith("<svg"))


if __name__ == "__main__":
    unittest.main()
