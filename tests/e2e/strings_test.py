#!/usr/bin/env python3
"""Models that read and answer strings: through a server as BYTES, by the command line, and beside ONNX Runtime.

usage: strings_test.py OCTET
"""

import pathlib
import subprocess
import sys
import tempfile
import unittest

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import grpc
import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from served_client import ServedClient

OCTET = ""
ANIMALS = ["cat", "dog", "Ærø"]
client = stub = messages = None


def info(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def save(nodes, inputs, outputs, path, initializers=()):
    graph = helper.make_graph(nodes, "net", inputs, outputs, list(initializers))
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 4)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def write_labels(path):
    """text [n] -> id [n]: the number of an animal, else -1; greeting [n]: "hello, " and the text; score [n, 3]: one-hot."""
    nodes = [
        helper.make_node("LabelEncoder", ["text"], ["id"], domain="ai.onnx.ml", keys_strings=ANIMALS,
                         values_int64s=[0, 1, 2], default_int64=-1),
        helper.make_node("StringConcat", ["hello", "text"], ["greeting"]),
        helper.make_node("OneHot", ["id", "three", "off_on"], ["score"]),
    ]
    constants = [
        helper.make_tensor("hello", TensorProto.STRING, [1], [b"hello, "]),
        numpy_helper.from_array(numpy.int64(3), "three"),
        numpy_helper.from_array(numpy.float32([0, 1]), "off_on"),
    ]
    outputs = [info("id", TensorProto.INT64, ["n"]), info("greeting", TensorProto.STRING, ["n"]),
               info("score", TensorProto.FLOAT, ["n", 3])]
    save(nodes, [info("text", TensorProto.STRING, ["n"])], outputs, path, constants)


def to_wire(words):
    """BYTES: the length of each element in four bytes, little-endian, and then itself."""
    return b"".join(len(word).to_bytes(4, "little") + word for word in words)


def from_wire(raw):
    words = []
    while raw:
        length = int.from_bytes(raw[:4], "little")
        words.append(raw[4 : 4 + length])
        raw = raw[4 + length :]
    return words


def setUpModule():
    global client, stub, messages
    client = ServedClient(OCTET, {"labels": write_labels})
    stub, messages = client.stub, client.messages


def tearDownModule():
    client.close()


def request(shape, raw=None, typed=None):
    made = messages.ModelInferRequest(model_name="labels")
    tensor = made.inputs.add(name="text", datatype="BYTES", shape=shape)
    if raw is not None:
        made.raw_input_contents.append(raw)
    if typed is not None:
        tensor.contents.bytes_contents.extend(typed)
    return made


class ServedTest(unittest.TestCase):
    WORDS = [b"dog", b"", b"\xff\x00 is no UTF-8", "Ærø".encode()]

    def check_answer(self, response):
        self.assertEqual([o.datatype for o in response.outputs], ["INT64", "BYTES", "FP32"])
        self.assertEqual([list(o.shape) for o in response.outputs], [[4], [4], [4, 3]])
        self.assertEqual(numpy.frombuffer(response.raw_output_contents[0], numpy.int64).tolist(), [1, -1, -1, 2])
        self.assertEqual(from_wire(response.raw_output_contents[1]), [b"hello, " + word for word in self.WORDS])

    def test_raw_and_typed_contents_are_taken(self):
        self.check_answer(stub.ModelInfer(request([4], raw=to_wire(self.WORDS)), timeout=20))
        self.check_answer(stub.ModelInfer(request([4], typed=self.WORDS), timeout=20))

    def test_many_requests_at_once_keep_their_words(self):
        # A model of strings does not batch: each request is a run of its own.
        calls = []
        for i in range(50):
            word = b"word %d" % i
            calls.append((word, stub.ModelInfer.future(request([2], raw=to_wire([word, word])), timeout=60)))
        for word, call in calls:
            self.assertEqual(from_wire(call.result().raw_output_contents[1]), [b"hello, " + word] * 2)

    def test_metadata_says_bytes(self):
        metadata = stub.ModelMetadata(messages.ModelMetadataRequest(name="labels"), timeout=20)
        self.assertEqual([i.datatype for i in metadata.inputs], ["BYTES"])
        self.assertEqual([o.datatype for o in metadata.outputs], ["INT64", "BYTES", "FP32"])
        config = stub.ModelConfig(messages.ModelConfigRequest(name="labels"), timeout=20).config
        self.assertEqual(config.input[0].data_type, messages.TYPE_STRING)
        self.assertEqual(config.max_batch_size, 0)

    def test_bad_contents_are_the_requests_fault(self):
        one = to_wire([b"dog"])
        for bad, text in [
            (request([1], raw=one[:-1]), "expected 3 bytes by its length, got 2"),
            (request([1], raw=one + b"\x01\x00"), "length, expected 4 bytes, got 2"),
            (request([1], raw=b"\xff\xff\xff\xff"), "expected 4294967295 bytes"),
            (request([2], raw=one), "elements, expected 2 for BYTES [2], got 1"),
            (request([1], raw=one + one), "elements, expected 1 by the shape, got more"),
            (request([3], typed=[b"a"]), "elements, expected 3 for BYTES [3], got 1"),
        ]:
            with self.subTest(text), self.assertRaises(grpc.RpcError) as raised:
                stub.ModelInfer(bad, timeout=20)
            self.assertEqual(raised.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertIn('input "text"', raised.exception.details())
            self.assertIn(text, raised.exception.details())
        self.test_raw_and_typed_contents_are_taken()

    def test_load_sends_words(self):
        words = ["load", "--target", client.server.grpc, "--model", "labels", "--seconds", "0.5"]
        random = subprocess.run([OCTET, *words], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(random.returncode, 0, random.stderr)
        data = client.folder / "words.npz"
        numpy.savez(data, text=numpy.array(["dog", "Ærø", "", "cat"]))
        given = subprocess.run([OCTET, *words, "--data", data], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(given.returncode, 0, given.stderr)


def as_tensor(array):
    if array.dtype.kind in "OU":
        return helper.make_tensor("", TensorProto.STRING, array.shape, [str(word).encode() for word in array.ravel()])
    return numpy_helper.from_array(array)


class OracleTest(unittest.TestCase):
    """`octet check` against what ONNX Runtime answers."""

    def compare(self, nodes, inputs, outputs):
        """`inputs`: name -> array; `outputs`: (name, type, rank)."""
        with tempfile.TemporaryDirectory() as name:
            path = pathlib.Path(name)
            model = path / "model.onnx"
            types = {"U": TensorProto.STRING, "O": TensorProto.STRING, "f": TensorProto.FLOAT, "i": TensorProto.INT64}
            given = {key: numpy.array(value) for key, value in inputs.items()}
            save(nodes, [info(key, types[value.dtype.kind], [None] * value.ndim) for key, value in given.items()],
                 [info(key, kind, [None] * rank) for key, kind, rank in outputs], model)
            session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
            feed = {key: value.astype(object) if value.dtype.kind == "U" else value for key, value in given.items()}
            answers = session.run(None, feed)
            data = path / "golden/test_data_set_0"
            data.mkdir(parents=True)
            for kind, arrays in (("input", given.values()), ("output", answers)):
                for i, array in enumerate(arrays):
                    (data / f"{kind}_{i}.pb").write_bytes(as_tensor(numpy.asarray(array)).SerializeToString())
            done = subprocess.run([OCTET, "check", model, "--golden", path / "golden"], capture_output=True, text=True,
                                  timeout=60, check=False)
            self.assertEqual(done.returncode, 0, f"{done.stdout}{done.stderr}\n{answers}")

    def test_string_split(self):
        # ONNX Runtime finds no part in an empty string, where ONNX's reference finds one, and cuts at spaces alone.
        texts = [["a,b,,c", ",,", ","], ["x", "a, b", ",,a"]]
        space = ["  a b  c ", "", " ", "one", "a  b  c  d"]
        for delimiter, words in ((",", texts), (", ", texts), (None, space), ("", space)):
            for most in (None, 0, 1, 2, 9):
                attributes = {} if delimiter is None else {"delimiter": delimiter}
                if most is not None:
                    attributes["maxsplit"] = most
                with self.subTest(delimiter=delimiter, maxsplit=most):
                    rank = numpy.array(words).ndim
                    self.compare([helper.make_node("StringSplit", ["x"], ["y", "z"], **attributes)], {"x": words},
                                 [("y", TensorProto.STRING, rank + 1), ("z", TensorProto.INT64, rank)])

    def test_string_normalizer(self):
        words = ["Monday", "tuesday", "WEDNESDAY", "monday", "élan", "ÉLAN"]
        for change in ("NONE", "LOWER", "UPPER"):
            for sensitive in (0, 1):
                for stopwords in (["monday"], ["Élan", "MONDAY"], words[:4] + ["élan", "ÉLAN"]):
                    with self.subTest(change=change, sensitive=sensitive, stopwords=stopwords):
                        node = helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action=change,
                                                is_case_sensitive=sensitive, stopwords=stopwords, locale="C.UTF-8")
                        self.compare([node], {"x": words}, [("y", TensorProto.STRING, 1)])

    def test_numbers_as_text_and_back(self):
        reals = numpy.float32([0, 1, -2.5, 0.1, 100000, 12345678, 1e9, 1e-7, numpy.inf, -numpy.inf, numpy.nan])
        to_text = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING)
        self.compare([to_text], {"x": reals}, [("y", TensorProto.STRING, 1)])
        self.compare([to_text], {"x": numpy.int64([0, -7, 2**62])}, [("y", TensorProto.STRING, 1)])
        to_real = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
        self.compare([to_real], {"x": ["1", "-2.5", "1e-5", "1E8", "INF", "-inf", "NaN"]}, [("y", TensorProto.FLOAT, 1)])
        to_whole = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64)
        self.compare([to_whole], {"x": ["1", "-7", "100.5"]}, [("y", TensorProto.INT64, 1)])

    def test_words_counted(self):
        node = helper.make_node(
            "TfIdfVectorizer", ["x"], ["y"], mode="TFIDF", min_gram_length=1, max_gram_length=2, max_skip_count=1,
            ngram_counts=[0, 3], ngram_indexes=[0, 1, 2, 3, 4], pool_strings=["a", "b", "c", "a", "b", "b", "c"],
            weights=[1.0, 2.0, 3.0, 0.5, 0.25])
        self.compare([node], {"x": [["a", "b", "c", "b"], ["x", "a", "a", "b"]]}, [("y", TensorProto.FLOAT, 2)])

    def test_labels(self):
        node = helper.make_node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", keys_int64s=[1, 2],
                                values_strings=["one", "two"], default_string="many")
        self.compare([node], {"x": numpy.int64([[2, 1], [3, 2]])}, [("y", TensorProto.STRING, 2)])
        node = helper.make_node("RegexFullMatch", ["x"], ["m"], pattern=r"[a-z]+\d*")
        where = helper.make_node("Where", ["m", "x", "other"], ["y"])
        self.compare([node, where], {"x": ["ab1", "1", "", "zz"], "other": ["no"]}, [("y", TensorProto.STRING, 1)])


class CommandLineTest(unittest.TestCase):
    def test_bench_and_inspect_know_strings(self):
        model = client.folder / "models/labels/1/fp32.onnx"
        data = client.folder / "bench.npz"
        numpy.savez(data, text=numpy.array([b"dog", b"cow"]))
        for words in (["bench", model, "--seconds", "0.2"], ["bench", model, "--seconds", "0.2", "--inputs", data],
                      ["inspect", model], ["check", model, "--bisect-passes"]):
            done = subprocess.run([OCTET, *words], capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 0, f"{words}: {done.stderr}")

    def test_what_needs_numbers_says_so(self):
        model = client.folder / "models/labels/1/fp32.onnx"
        data = client.folder / "calibration.npz"
        numpy.savez(data, text=numpy.array([[["dog"]], [["cow"]]]))
        done = subprocess.run([OCTET, "quantize", model, "--calibration", data, "--out", client.folder],
                              capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("array 'text': expected shape", done.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
