#!/usr/bin/env python3
"""Whatever `octet quantize` cannot use gets an error that names it, and leaves no file behind.

usage: quantize_errors_test.py OCTET
"""

import pathlib
import signal
import subprocess
import tempfile
import unittest

import numpy as np
import onnx
from onnx import TensorProto, helper

import octet_process
from demo_model import CALIBRATION, FP32, MAP, mapped
from octet_process import octet, start


def can_mount():
    probe = ["unshare", "-m", "mount", "-t", "tmpfs", "none", tempfile.gettempdir()]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


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

    def test_nothing_to_save_statistics_of(self):
        words = ("--to", "fp16", "--calibration", CALIBRATION, "--save-calibration", self.folder / "file.npz")
        done = octet("quantize", FP32, "--out", self.out, *words)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("--save-calibration: int8 alone", done.stderr)
        self.assertFalse(self.out.exists())

    def test_options_that_do_not_go_together(self):
        """Refused before a file is read or written, though float files could be made first."""
        statistics = ("--calibration-file", self.folder / "none.npz")
        for words, said in (
            (("--percentile", "99.9"), "--percentile goes with --method percentile"),
            (("--method", "mse", "--percentile", "99.9", *statistics), "got --method mse"),
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
            command = ["quantize", FP32, "--to", "int8", "--calibration", CALIBRATION, "--map", MAP, *words]
            script = 'mount -t tmpfs -o size=64k none "$0" && "$@"; code=$?; ls -A "$0"; exit $code'
            done = subprocess.run(["unshare", "-m", "sh", "-c", script, disk, octet_process.executable(), *map(str, command)],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=240, check=False)  # fmt: skip
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
