#!/usr/bin/env python3
"""Trains the demo's model with its rounding, as a user would, and gives `octet qat` what it cannot use.

usage: qat_test.py OCTET
"""

import os
import pathlib
import re
import signal
import tempfile
import unittest
from unittest import mock

import numpy as np
import onnx

import octet_process
from demo_model import CALIBRATION, FP32, MAP, TEST
from octet_process import answer, octet
from small_disk import can_mount, on_small_disk


# A fifth of the demo's images, where nothing is asked of the answers of what is trained.
_folder = tempfile.TemporaryDirectory()
FEW = pathlib.Path(_folder.name, "few.npz")
with np.load(CALIBRATION) as _arrays:
    np.savez(FEW, **{name: _arrays[name][::5] for name in _arrays})


class QatTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.out = self.folder / "out" / "int8.onnx"
        self.out.parent.mkdir()

    def train(self, *words, data=CALIBRATION):
        return answer("qat", FP32, "--data", data, "--map", MAP, "--out", self.out, *words)

    def refused(self, *words, data=CALIBRATION, out=None):
        """Returns the one line that the verb ends with."""
        done = octet("qat", FP32, "--data", data, "--map", MAP, "--out", out or self.out, *words)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(list(self.out.parent.iterdir()), [], "nothing is left behind")
        line = done.stderr.splitlines()[-1]
        self.assertTrue(line.startswith("octet: "), done.stderr)
        return line

    def data(self, **changes):
        with np.load(CALIBRATION) as arrays:
            kept = {**{name: arrays[name] for name in arrays}, **changes}
        path = self.folder / "data.npz"
        np.savez(path, **{name: array for name, array in kept.items() if array is not None})
        return path

    def test_the_fp32_model_teaches(self):
        curve = self.train("--epochs", 2, "--per-tensor", "--no-equalize", "--no-compensate")
        self.assertEqual([row["epoch"] for row in curve["epochs"]], [0, 1, 2])
        self.assertIsNone(curve["epochs"][0]["train_loss"])
        best = curve["epochs"][curve["best_epoch"]]
        self.assertEqual(best["held_back_loss"], min(row["held_back_loss"] for row in curve["epochs"]))
        self.assertGreater(curve["best_epoch"], 0)
        result = answer("eval", self.out, "--data", TEST, "--map", MAP, "--reference", FP32)
        self.assertGreaterEqual(result["agreement"], 98.5)
        certificate = answer("inspect", self.out)
        self.assertEqual(certificate["precision"], "int8")
        self.assertGreaterEqual(certificate["mac_share"]["int8"], 0.97)

    def test_rounds_what_saves_time(self):
        for words, fewer in (((), True), (("--no-fewer-roundings",), False)):
            self.train("--epochs", 1, *words, data=FEW)
            graph = onnx.load(self.out).graph
            makers = {name: node.op_type for node in graph.node for name in node.output}
            added = [makers.get(name) for node in graph.node if node.op_type == "Add" for name in node.input]
            last = [makers[node.input[0]] for node in graph.node if node.op_type == "Gemm"]
            self.assertEqual(len(last), 1)
            for makers_of in (added, last):
                self.assertEqual("DequantizeLinear" not in makers_of, fewer, makers_of)

    def test_four_bit_weights(self):
        words = ("--epochs", 4, "--weight-bits", 4)
        curve = self.train(*words)
        self.assertGreater(curve["best_epoch"], 0)
        result = answer("eval", self.out, "--data", TEST, "--map", MAP, "--reference", FP32)
        self.assertGreaterEqual(result["agreement"], 97)
        calibrated = self.folder / "calibrated"
        answer("quantize", FP32, "--to", "int8", "--calibration", CALIBRATION, "--map", MAP, "--out", calibrated, *words[2:])
        before = answer("eval", calibrated / "int8.onnx", "--data", TEST, "--map", MAP, "--reference", FP32)
        self.assertGreater(result["sqnr_db"], before["sqnr_db"])

    def test_labels_teach(self):
        curve = self.train("--labels", "--epochs", 1)
        self.assertEqual(len(curve["epochs"]), 2)
        result = answer("eval", self.out, "--data", TEST, "--map", MAP)
        self.assertGreaterEqual(result["top1"], 90)

    def test_the_curve_is_printed(self):
        done = octet("qat", FP32, "--data", FEW, "--map", MAP, "--out", self.out, "--epochs", 1)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertIn("held-back loss", lines[0])
        self.assertIn("calibrated", lines[1])

    def test_no_step_of_calibration_is_beyond_its_last(self):
        with np.load(CALIBRATION) as arrays:
            few = self.data(**{name: arrays[name][:40] for name in arrays})
        done = octet("qat", FP32, "--data", few, "--map", MAP, "--out", self.out, "--epochs", 1)
        self.assertEqual(done.returncode, 0, done.stderr)
        steps = re.findall(r"^calibrating: (\d+) of (\d+)$", done.stderr, re.MULTILINE)
        self.assertGreater(len({total for _, total in steps}), 1, "of data, then of ranges that are tried")
        for step, total in steps:
            self.assertLessEqual(int(step), int(total), done.stderr)

    def test_goes_on_from_its_own_file(self):
        first = self.train("--epochs", 2, "--per-tensor", "--no-equalize", "--no-compensate")
        self.assertGreater(first["best_epoch"], 0)
        start = self.folder / "start.onnx"
        self.out.rename(start)
        second = self.train("--epochs", 1, "--start", start)
        best = first["epochs"][first["best_epoch"]]
        self.assertEqual(second["epochs"][0]["held_back_loss"], best["held_back_loss"])
        certificate = answer("inspect", self.out)
        self.assertEqual(certificate["precision"], "int8")
        self.assertGreaterEqual(certificate["mac_share"]["int8"], 0.97)
        done = octet("qat", FP32, "--start", start, "--data", CALIBRATION, "--map", MAP, "--out", self.out, "--epochs", 1)
        self.assertIn("started from", done.stdout.splitlines()[1])

    def test_what_it_cannot_go_on_from(self):
        self.assertIn("goes on from a QDQ file", self.refused("--start", FP32, data=FEW))
        self.assertIn("no such file", self.refused("--start", self.folder / "none.onnx", data=FEW))
        quantized = self.folder / "quantized"
        answer("quantize", FP32, "--to", "int8", "--method", "min-max", "--calibration", FEW, "--map", MAP, "--out", quantized)
        start = quantized / "int8.onnx"
        for option in ("--per-tensor", "--weight-bits=4", "--no-equalize", "--no-smooth", "--no-compensate", "--no-correct-bias"):
            line = self.refused("--start", start, option, data=FEW)
            self.assertIn("of how the fp32 model is quantized; --start says it has been", line)
        self.assertIn("it would replace", self.refused_at_once("--start", start, "--out", start))
        other = onnx.load(start)
        other.graph.output[0].name = other.graph.node[-1].output[0] = "other"
        onnx.save(other, self.folder / "other.onnx")
        line = self.refused("--start", self.folder / "other.onnx", data=FEW)
        self.assertIn("other.onnx: it has the outputs 'other', the fp32 model", line)
        checkpoint = self.folder / "qat.npz"
        self.train("--start", start, "--epochs", 1, "--checkpoint", checkpoint, data=FEW)
        self.out.unlink()
        self.assertIn("--start 'given', asked for is ''", self.refused("--epochs", 1, "--checkpoint", checkpoint, data=FEW))

    def test_bf16_where_the_cpu_has_it(self):
        words = ("qat", FP32, "--data", FEW, "--map", MAP, "--out", self.out, "--epochs", 1, "--compute", "bf16")
        with mock.patch.dict(os.environ, {"ONEDNN_MAX_CPU_ISA": "AVX2"}):
            done = octet(*words)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("training in bf16 takes a CPU with avx512_core_bf16, this one has avx2", done.stderr)
        self.assertEqual(list(self.out.parent.iterdir()), [])
        done = octet(*words)
        if "takes a CPU with" not in done.stderr:
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(self.out.exists())

    def test_labels_that_do_not_fit(self):
        count = len(np.load(CALIBRATION)["inputs"])
        labels = np.zeros(count, np.int64)
        labels[7] = 32
        self.assertIn("label of sample 7: expected 0 to 31, got 32", self.refused("--labels", data=self.data(labels=labels)))
        self.assertIn("'labels'", self.refused("--labels", data=self.data(labels=None)))

    def test_data_that_do_not_fit(self):
        images = np.load(CALIBRATION)["inputs"]
        line = self.refused(data=self.data(inputs=images[:, :, :20]))
        self.assertIn("expected shape [?,3,32,32]", line)
        few = self.data(inputs=images[:5], labels=None)
        self.assertIn("expected at least 8, got 5", self.refused(data=few))

    def test_a_loss_that_is_no_number(self):
        self.assertIn("training diverged", self.refused("--learning-rate", "1e30", "--epochs", 2, data=FEW))

    def refused_at_once(self, *words, model=FP32):
        """Returns the only line of a verb that ends before it has looked at data for long."""
        done = octet("qat", model, "--data", FEW, "--map", MAP, "--epochs", 1, *words)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(done.stdout, "", "no epoch was trained")
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        return done.stderr

    def test_a_place_that_takes_no_file(self):
        self.assertIn("cannot create folder /proc/octet", self.refused(out="/proc/octet/int8.onnx"))
        self.assertIn("is a folder", self.refused(out=self.folder))
        self.assertIn("cannot create /proc/self/int8.onnx", self.refused_at_once("--out", "/proc/self/int8.onnx"))
        self.assertIn("cannot create /proc/self/qat.npz", self.refused_at_once("--out", self.out, "--checkpoint", "/proc/self/qat.npz"))

    def test_a_file_that_would_be_replaced(self):
        model = self.folder / "model.onnx"
        model.write_bytes(FP32.read_bytes())
        link = self.folder / "link.npz"
        link.symlink_to(FEW)
        for words in (
            ("--out", model),
            ("--out", self.folder / "out" / ".." / "model.onnx"),
            ("--out", link),
            ("--out", self.out, "--checkpoint", model),
            ("--out", self.out, "--checkpoint", self.out),
        ):
            with self.subTest(words=words):
                self.assertIn("it would replace", self.refused_at_once(*words, model=model))
                self.assertEqual(model.read_bytes(), FP32.read_bytes())
                self.assertTrue(link.is_symlink())
                self.assertEqual(list(self.out.parent.iterdir()), [])

    def test_a_checkpoint_among_the_samples(self):
        """The next call would read it as one of them."""
        samples = self.folder / "samples"
        samples.mkdir()
        (samples / "a.npz").write_bytes(CALIBRATION.read_bytes())
        line = self.refused("--checkpoint", samples / "qat.npz", data=samples)
        self.assertIn("it would be one of the files of samples", line)
        self.assertEqual([path.name for path in samples.iterdir()], ["a.npz"])

    def test_samples_are_moved(self):
        plain = self.train("--epochs", 1, data=FEW)
        moved = self.train("--epochs", 1, "--flip", "--shift", 2, data=FEW)
        self.assertEqual(moved["epochs"][0]["held_back_loss"], plain["epochs"][0]["held_back_loss"], "what is examined stays")
        self.assertNotEqual(moved["epochs"][1]["train_loss"], plain["epochs"][1]["train_loss"])
        done = octet("qat", FP32, "--data", CALIBRATION, "--map", MAP, "--out", self.out, "--shift", "-1")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("--shift", done.stderr)

    def test_what_only_the_fp32_model_teaches(self):
        self.assertIn("--loss: of what the fp32 model teaches", self.refused_at_once("--labels", "--loss", "kl", "--out", self.out))
        self.assertIn("--blend: of what the fp32 model teaches", self.refused_at_once("--labels", "--blend", "0", "--out", self.out))

    def test_models_that_cannot_be_trained(self):
        quantized = self.folder / "quantized"
        answer("quantize", FP32, "--to", "int8-dynamic", "--out", quantized)
        line = self.refused_at_once("--out", self.out, model=quantized / "int8-dynamic.onnx")
        self.assertIn("quantized already", line)
        self.assertIn("int8-dynamic.onnx", line)
        unknown = onnx.load(FP32)
        unknown.graph.node[-1].op_type = "NoSuchOperator"
        onnx.save(unknown, self.folder / "unknown.onnx")
        self.assertIn("NoSuchOperator", self.refused_at_once("--out", self.out, model=self.folder / "unknown.onnx"))

    def test_an_operator_that_training_does_not_know(self):
        """It is served and quantized around like any other, but nobody wrote its gradient."""
        model = onnx.load(FP32)
        last, output = model.graph.node[-1], model.graph.output[0].name
        last.output[0] = "scores"
        model.graph.node.append(onnx.helper.make_node("Cos", ["scores"], [output], name="wave"))
        path = self.folder / "wave.onnx"
        onnx.save(model, path)
        checkpoint = self.folder / "qat.npz"
        done = octet("qat", path, "--data", FEW, "--map", MAP, "--out", self.out, "--epochs", 1, "--checkpoint", checkpoint)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual((list(self.out.parent.iterdir()), checkpoint.exists()), ([], False))
        line = done.stderr.splitlines()[-1]
        for word in ("octet: ", "training does not know", "Cos", "'wave'"):
            self.assertIn(word, line)

    @unittest.skipUnless(can_mount(), "mounts a file system")
    def test_a_full_disk(self):
        disk = self.folder / "disk"
        disk.mkdir()
        for words in (("--out", disk / "int8.onnx"), ("--out", self.out, "--checkpoint", disk / "qat.npz")):
            with self.subTest(words=words):
                done = on_small_disk(disk, "qat", FP32, "--data", FEW, "--map", MAP, "--epochs", 1, "--json", *words)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertEqual(done.stdout, "", "nothing is left on the disk")
                line = done.stderr.splitlines()[-1]
                self.assertIn("No space left on device", line)
                self.assertIn(str(disk), line)
                self.assertEqual(list(self.out.parent.iterdir()), [])

    def test_an_interrupt_ends_it_without_a_file(self):
        process = octet_process.start(
            "qat", FP32, "--data", FEW, "--map", MAP, "--out", self.out, "--epochs", 10000, "--patience", 10000
        )
        with process:
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1, stderr)
        self.assertIn("octet: training was stopped", stderr.replace(f"{FP32}: ", ""))
        self.assertEqual(list(self.out.parent.iterdir()), [])

    def test_what_was_interrupted_goes_on_to_the_same_file(self):
        words = ("--epochs", 3)
        self.train(*words)
        whole = self.out.read_bytes()
        self.out.unlink()
        checkpoint = self.folder / "states" / "qat.npz"
        words += ("--checkpoint", checkpoint)
        process = octet_process.start("qat", FP32, "--data", CALIBRATION, "--map", MAP, "--out", self.out, *words)
        with process:
            self.assertTrue(any(line.split()[:1] == ["1"] for line in process.stdout), "training ended before the first epoch")
            process.send_signal(signal.SIGTERM)
            _, stderr = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1, stderr)
        self.assertRegex(stderr, "training was stopped behind [0-9]+ of [0-9]+ batches of epoch [23], which .*qat.npz keeps")
        self.assertEqual(list(self.out.parent.iterdir()), [])
        self.assertIn("--seed '1', asked for is '2'", self.refused(*words, "--seed", 2))
        self.assertEqual([row["epoch"] for row in self.train(*words)["epochs"]], [0, 1, 2, 3])
        self.assertEqual(self.out.read_bytes(), whole)
        self.assertEqual(list(checkpoint.parent.iterdir()), [checkpoint], "no half-written file is left")


if __name__ == "__main__":
    octet_process.main()
