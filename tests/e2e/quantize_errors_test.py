#!/usr/bin/env python3
"""Whatever `octet quantize` cannot use gets an error that names it, and leaves no file behind.

usage: quantize_errors_test.py OCTET
"""

import pathlib
import signal
import tempfile
import unittest

import numpy as np
import onnx
from onnx import TensorProto, helper

import octet_process
from demo_model import CALIBRATION, FP32, MAP, mapped
from octet_process import octet, start
from small_disk import can_mount, on_small_disk


class QuantizeErrorsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.out = self.folder / "out"

    def refused(self, *words, model=FP32, code=1):
        """Returns the one line that the verb ends with."""
        done = octet("quantize", model, "--to", "int8", "--out", self.out, *words)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertFalse(list(self.out.glob("*")) if self.out.is_dir() else [], "nothing is left behind")
        lines = done.stderr.splitlines()
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertTrue(lines[0].startswith("octet: "), done.stderr)
        return lines[0]

    def calibration(self, **arrays):
        path = self.folder / "calibration.npz"
        np.savez(path, **arrays)
        return path

    def images(self, count=4):
        return np.load(CALIBRATION)["inputs"][:count]

    def test_no_calibration(self):
        self.assertIn("--calibration", self.refused())

    def test_missing_files(self):
        missing = self.folder / "missing"
        for words, model in (
            (("--calibration", missing, "--map", MAP), FP32),
            (("--calibration", CALIBRATION, "--map", missing), FP32),
            (("--calibration", CALIBRATION, "--map", MAP), missing),
        ):
            self.assertIn(str(missing), self.refused(*words, model=model))

    def test_an_archive_that_is_none(self):
        path = self.folder / "calibration.npz"
        path.write_bytes(b"PK\x03\x04 but no more")
        self.assertIn(str(path), self.refused("--calibration", path, "--map", MAP))

    def test_an_array_of_another_shape(self):
        path = self.calibration(inputs=self.images()[:, :, :20])
        line = self.refused("--calibration", path, "--map", MAP)
        for word in (str(path), "'inputs'", "expected shape [?,3,32,32]", "got [4,3,20,32]"):
            self.assertIn(word, line)

    def test_an_array_of_another_type(self):
        path = self.calibration(inputs=self.images().astype(np.int16))
        line = self.refused("--calibration", path, "--map", MAP)
        self.assertIn("expected FP32 or UINT8, got INT16", line)

    def test_no_samples(self):
        path = self.calibration(inputs=self.images(0))
        self.assertIn("no samples", self.refused("--calibration", path, "--map", MAP))

    def test_samples_of_no_elements(self):
        """Any number of them fits a file of a few bytes."""
        for count in (4, 1 << 61):
            path = self.calibration(inputs=np.zeros((count, 0), np.uint8))
            line = self.refused("--calibration", path, "--map", MAP)
            self.assertIn(f"{path}: array 'inputs': [{count},0] holds samples of no elements", line)

    def test_arrays_that_the_model_does_not_read(self):
        """Whatever they are: they may differ between files, and labels in type and shape."""
        images, first, second = self.images(32), self.folder / "set" / "a.npz", self.folder / "set" / "b.npz"
        first.parent.mkdir()
        labels = np.arange(16) % 10
        none, notes = np.zeros((16, 0), np.uint8), np.zeros((16, 3), np.int16)
        for name, one, other in (
            ("no elements", {"notes": none}, {"notes": none}),
            ("labels", {"labels": labels}, {"labels": labels.astype(np.int32)[:, None]}),
            ("others", {"notes": notes}, {"notes": notes.astype(np.float32)[0]}),
            ("in one file", {"notes": notes}, {}),
        ):
            np.savez(first, inputs=images[:16], **one)
            np.savez(second, inputs=images[16:], **other)
            words = ("--calibration", first.parent, "--map", MAP)
            with self.subTest(name):
                done = octet("quantize", FP32, "--to", "int8", "--out", self.out, *words, "--method", "percentile")
                self.assertEqual(done.returncode, 0, done.stderr)
                done = octet("eval", self.out / "int8.onnx", "--data", first.parent, "--map", MAP, "--reference", FP32)
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_no_array_of_the_inputs_name(self):
        path = self.calibration(pictures=self.images())
        line = self.refused("--calibration", path, "--map", MAP)
        self.assertIn("'image'", line)
        self.assertIn(str(path), line)

    def test_nan_names_the_sample(self):
        images = mapped(self.images())
        images[2, 1, 3, 5] = np.nan
        path = self.calibration(image=images)
        line = self.refused("--calibration", path)
        self.assertIn("sample 2", line)
        self.assertIn("NaN", line)

    def test_infinity_names_the_sample(self):
        images = mapped(self.images())
        images[3] = np.inf
        self.assertIn("sample 3", self.refused("--calibration", self.calibration(image=images)))

    def test_a_loss_of_top1_needs_labels(self):
        path = self.calibration(inputs=self.images())
        line = self.refused("--calibration", path, "--map", MAP, "--max-drop", "0.3")
        for word in ("--max-drop", str(path), "'labels'"):
            self.assertIn(word, line)

    def test_a_floor_that_nothing_holds(self):
        done = octet("quantize", FP32, "--to", "int8", "--calibration", CALIBRATION, "--map", MAP, "--min-sqnr-db", "200",
                     "--out", self.out)  # fmt: skip
        self.assertEqual(done.returncode, 1)
        line = done.stderr.splitlines()[-1]
        for word in ("SQNR of at least 200 dB", "alone in int8 there is an SQNR of", "with all layers"):
            self.assertIn(word, line)
        self.assertFalse(list(self.out.glob("*")))

    def test_a_folder_that_cannot_be_made(self):
        self.out = pathlib.Path("/proc/octet")
        self.assertIn("/proc/octet", self.refused("--calibration", CALIBRATION, "--map", MAP))

    def test_a_folder_that_is_a_file(self):
        file = self.folder / "file"
        file.write_text("")
        self.out = file
        self.assertIn(str(file), self.refused("--calibration", CALIBRATION, "--map", MAP))

    def test_a_label_that_is_no_class(self):
        path = self.calibration(inputs=self.images(), labels=np.array([0, 1, 99, 2]))
        line = self.refused("--calibration", path, "--map", MAP, "--max-drop", "0.3")
        for word in ("sample 2", "classes", "got 99"):
            self.assertIn(word, line)

    def test_labels_that_are_not_one_each(self):
        path = self.calibration(inputs=self.images(), labels=np.arange(3))
        line = self.refused("--calibration", path, "--map", MAP)
        self.assertIn("array 'labels': expected 4 integers, got [3] of INT64", line)

    def test_too_few_samples_to_hold_some_back(self):
        path = self.calibration(inputs=self.images(1))
        line = self.refused("--calibration", path, "--map", MAP, "--min-sqnr-db", "10")
        self.assertIn("at least 2", line)

    def test_nothing_to_quantize(self):
        value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 32, 32]) for name in ("image", "y")]
        graph = helper.make_graph([helper.make_node("Relu", ["image"], ["y"])], "relu", value[:1], value[1:])
        path = self.folder / "relu.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
        line = self.refused("--calibration", CALIBRATION, "--map", MAP, model=path)
        self.assertIn("nothing to quantize", line)
        self.assertIn(str(path), line)

    def test_no_folder_for_the_calibration_file(self):
        line = self.refused("--calibration", CALIBRATION, "--map", MAP, "--save-calibration", self.folder / "none" / "file.npz")
        self.assertIn(str(self.folder / "none"), line)

    def refused_at_once(self, *words):
        """Returns the line that the verb ends with, before it makes so much as a folder."""
        done = octet("quantize", FP32, "--out", self.out, *words)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertFalse(self.out.exists())
        return done.stderr

    def test_what_only_int8_reads(self):
        for given in (
            ("--calibration", "nosuch.npz"),
            ("--calibration-file", "nosuch.npz"),
            ("--save-calibration", self.folder / "file.npz"),
            ("--activations", "s8"),
            ("--method", "mse"),
            ("--percentile", 99),
            ("--weight-bits", 4),
            ("--no-equalize",),
            ("--no-compensate",),
            ("--no-correct-bias",),
            ("--max-drop", 0.3),
            ("--min-agreement", 99),
            ("--min-sqnr-db", 30),
            ("--all-int8",),
            ("--seed", 2),
        ):
            with self.subTest(given[0]):
                line = self.refused_at_once("--to", "fp16,int8-dynamic", *given)
                self.assertIn(f"{given[0].replace('--no-', '--')}: for int8 alone", line)
        self.assertIn("--per-tensor: for int8 and int8-dynamic", self.refused_at_once("--to", "fp16,bf16", "--per-tensor"))

    def test_a_percentile_that_no_method_reads(self):
        data = ("--to", "int8", "--calibration", CALIBRATION, "--map", MAP, "--percentile", 99)
        for method in (), ("--method", "mse"):
            self.assertIn("--percentile: for --method percentile", self.refused_at_once(*data, *method))

    def test_no_variant_is_made_when_int8_fails(self):
        images = mapped(self.images())
        images[2] = np.nan
        broken = self.calibration(image=images)
        for words, message in (
            ((), "int8 needs --calibration"),
            (("--calibration", self.folder / "none.npz"), "none.npz"),
            (("--calibration", broken), "sample 2"),
            (("--calibration", CALIBRATION, "--map", MAP, "--min-sqnr-db", "200"), "SQNR of at least 200 dB"),
        ):
            with self.subTest(message):
                done = octet("quantize", FP32, "--out", self.out, *words)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn(message, done.stderr.splitlines()[-1])
                self.assertFalse(list(self.out.glob("*")), "fp16 and bf16 would lie beside an older int8 file")

    def test_a_file_that_would_be_replaced(self):
        self.out.mkdir()
        source = self.out / "int8.onnx"
        source.write_bytes(FP32.read_bytes())
        link = self.folder / "link.onnx"
        link.symlink_to(source)
        data = ("--calibration", CALIBRATION, "--map", MAP)
        for words in ((source, "--out", self.out), (link, "--out", self.out), (source, "--out", self.folder, "--save-calibration", link)):
            with self.subTest(words=words):
                done = octet("quantize", *words, *data)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("it would replace", done.stderr)
                self.assertEqual(list(self.out.glob("*")), [source])
                self.assertEqual(source.read_bytes(), FP32.read_bytes())

    def test_a_file_among_the_samples(self):
        """The next call would read it as one of them."""
        samples = self.folder / "samples"
        samples.mkdir()
        (samples / "a.npz").write_bytes(CALIBRATION.read_bytes())
        link = self.folder / "link"
        link.symlink_to(samples)
        data = ("--map", MAP, "--save-calibration", samples / "statistics.npz")
        for folder in (samples, link):
            line = self.refused("--calibration", folder, *data)
            self.assertIn(f"cannot write '{samples}/statistics.npz': it would be one of the files of samples in '{folder}'", line)
        self.assertEqual([path.name for path in samples.iterdir()], ["a.npz"])

    def test_statistics_in_the_place_of_what_is_read(self):
        path = self.calibration(inputs=self.images())
        content = path.read_bytes()
        self.assertIn("it would replace", self.refused("--calibration", path, "--map", MAP, "--save-calibration", path))
        self.assertEqual(path.read_bytes(), content)

    def test_a_folder_that_takes_no_file(self):
        done = octet("quantize", FP32, "--to", "int8", "--calibration", CALIBRATION, "--map", MAP, "--out", "/proc/self")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("cannot create /proc/self/int8.onnx", done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, "before calibration")

    def test_options_that_do_not_go_together(self):
        """Refused before a file is read or written, though float files could be made first."""
        statistics = ("--calibration-file", self.folder / "none.npz")
        for words, said in (
            (("--percentile", "99.9"), "--percentile: for --method percentile, not auto"),
            (("--method", "mse", "--percentile", "99.9", *statistics), "--percentile: for --method percentile, not mse"),
            (statistics, "--method auto takes samples"),
            ((*statistics, "--method", "mse", "--min-sqnr-db", "20"), "a floor of accuracy takes samples"),
        ):
            done = octet("quantize", FP32, "--to", "fp16,int8", "--out", self.out, *words)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(said, done.stderr)
            self.assertFalse(self.out.exists())

    def test_a_header_that_claims_gigabytes(self):
        """The claim is held against the file before memory is taken for it."""
        path = self.calibration(inputs=self.images())
        content = path.read_bytes()
        path.write_bytes(content.replace(b"'shape': (4, 3, 32, 32), }       ", b"'shape': (1000000, 3, 32, 32), } "))
        self.assertNotEqual(path.read_bytes(), content)
        line = self.refused("--calibration", path, "--map", MAP)
        for word in (str(path), "'inputs.npy'", "its header says 3072000000 bytes of elements, 12"):
            self.assertIn(word, line)

    def test_an_interrupt_leaves_nothing(self):
        process = start("quantize", FP32, "--to", "int8", "--out", self.out, "--calibration", CALIBRATION, "--map", MAP)
        process.stderr.readline()  # the first quarter
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 1, rest)
        self.assertIn("calibration was stopped", rest.splitlines()[-1])
        self.assertFalse(list(self.out.glob("*")))

    @unittest.skipUnless(can_mount(), "mounts a file system")
    def test_a_full_disk(self):
        disk = self.folder / "disk"
        disk.mkdir()
        for words in (["--out", disk], ["--out", self.folder / "elsewhere", "--save-calibration", disk / "statistics.npz"]):
            done = on_small_disk(disk, "quantize", FP32, "--to", "int8", "--calibration", CALIBRATION, "--map", MAP, *words)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertEqual(done.stdout, "", "nothing is left on the disk")
            line = done.stderr.splitlines()[-1]
            self.assertTrue(line.startswith("octet: "), line)
            self.assertIn("No space left on device", line)
            self.assertIn(str(disk), line)

    def test_garbage_is_no_model(self):
        path = self.folder / "model.onnx"
        path.write_bytes(b"\xff" * 1000)
        self.assertIn(str(path), self.refused("--calibration", CALIBRATION, "--map", MAP, model=path))


if __name__ == "__main__":
    octet_process.main()
