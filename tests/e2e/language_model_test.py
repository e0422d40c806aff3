#!/usr/bin/env python3
"""Decoder language models with GroupQueryAttention, as onnxruntime-genai's model builder lays them out: a prompt and the words
behind it, with the past sent by the client, and kept by the server, held against ONNX Runtime.

usage: language_model_test.py OCTET
"""

import json
import shutil
import subprocess
import sys
import time
import unittest

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import grpc
import numpy
import onnxruntime
from language_models import KV_HEADS, LAYERS, POSITIONS, SIZE, WORDS, no_past, past_names, write_language_model
from served_client import ServedClient

OCTET = ""
STEPS = 5
TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}
FORMS = {
    "parted": {},
    "packed": {"packed": True},
    "neighbours": {"rotary_interleaved": 1, "softcap": 5.0},
    "windowed": {"packed": True, "local_window_size": 4},
    "smooth": {"smooth_softmax": 1},
}
ROOM = 24
client = stub = messages = None


def kept(extra=""):
    """The model.yaml of a model whose past the server keeps."""
    rules = ", ".join(f"{past}: {{output: {present}{extra}}}" for past, present in past_names().items())
    return f"state: {{{rules}}}\n"


def write_form(form):
    return lambda path: write_language_model(path, **FORMS[form])


def write_kept(path):
    """Its fp32 and bf16 files are the same."""
    write_language_model(path)
    shutil.copy(path, path.parent / "bf16.onnx")
    (path.parent.parent / "model.yaml").write_text(kept() + "routing: {default: fp32}\n")


def write_buffered(path):
    write_language_model(path)
    (path.parent.parent / "model.yaml").write_text(kept(f", shape: [1, {KV_HEADS}, {ROOM}, {SIZE}]"))


def write_bounded(path):
    """Room for two copies of 2 * LAYERS tensors, of twenty positions."""
    write_language_model(path)
    most = 2 * 2 * LAYERS * KV_HEADS * SIZE * 4 * 20
    (path.parent.parent / "model.yaml").write_text(kept() + f"sequences: {{max_state_bytes: {most}}}\n")


def setUpModule():
    global client, stub, messages
    writers = {form: write_form(form) for form in FORMS}
    writers |= {"kept": write_kept, "buffered": write_buffered, "bounded": write_bounded}
    client = ServedClient(OCTET, writers)
    stub, messages = client.stub, client.messages


def tearDownModule():
    client.close()


def file_of(model):
    return client.folder / f"models/{model}/1/fp32.onnx"


def session_of(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file_of(model)), options, providers=["CPUExecutionProvider"])


def make_request(model, arrays, parameters=None):
    request = messages.ModelInferRequest(model_name=model)
    for name, array in arrays.items():
        request.inputs.add(name=name, datatype={"float32": "FP32", "int64": "INT64"}[str(array.dtype)], shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    for name, value in (parameters or {}).items():
        field = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
        setattr(request.parameters[name], field, value)
    return request


def answer_of(response):
    """Returns {output: array}."""
    return {
        output.name: numpy.frombuffer(raw, numpy.float32).reshape(output.shape)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def ask(model, arrays, parameters=None):
    return answer_of(stub.ModelInfer(make_request(model, arrays, parameters), timeout=60))


def mask_of(batch, length):
    return numpy.ones((batch, length), numpy.int64)


def prompt(batch, length, seed):
    return numpy.random.default_rng(seed).integers(WORDS, size=(batch, length))


def conversation(model, ids, room=0, steps=STEPS):
    """Yields, for a prompt and each word that ONNX Runtime scores most behind it, (inputs, its answers)."""
    session = session_of(model)
    names = [output.name for output in session.get_outputs()]
    length, arrays = ids.shape[1], {"input_ids": ids, **no_past(len(ids), room)}
    for _ in range(steps + 1):
        arrays["attention_mask"] = mask_of(len(ids), length)
        answers = dict(zip(names, session.run(None, arrays), strict=True))
        yield arrays, answers
        arrays = {past: answers[present] for past, present in past_names().items()}
        arrays["input_ids"] = answers["logits"][:, -1:].argmax(-1)
        length += 1


def metric(name, model):
    """The sum of a model's rows."""
    rows = [row for row in client.server.metrics_page().splitlines() if row.startswith(f'{name}{{model="{model}"')]
    return sum(float(row.rsplit(" ", 1)[1]) for row in rows)


def state_bytes(model):
    return metric("octet_sequence_state_bytes", model)


class LanguageModelTest(unittest.TestCase):
    def check(self, got, expected):
        self.assertEqual(set(got), set(expected))
        for name, value in expected.items():
            self.assertEqual(got[name].shape, value.shape, name)
            numpy.testing.assert_allclose(got[name], value, err_msg=name, **TOLERANCE)

    def test_a_prompt_and_words_behind_it_in_every_form_and_both_layouts_of_the_past(self):
        for form in FORMS:
            for room in (0, ROOM):
                for batch in (1, 2):
                    with self.subTest(form=form, room=room, batch=batch):
                        for arrays, expected in conversation(form, prompt(batch, 6, batch), room):
                            self.check(ask(form, arrays), expected)

    def test_a_second_prompt_goes_on_behind_the_first(self):
        first = prompt(1, 4, 3)
        (_, expected), = conversation("parted", first, steps=0)
        arrays = {past: expected[present] for past, present in past_names().items()}
        arrays |= {"input_ids": prompt(1, 5, 4), "attention_mask": mask_of(1, 9)}
        session = session_of("parted")
        names = [output.name for output in session.get_outputs()]
        self.check(ask("parted", arrays), dict(zip(names, session.run(None, arrays), strict=True)))

    def test_attention_is_one_step_whatever_the_past(self):
        for words, past in ((1, 6), (3, 6)):
            shapes = {"input_ids": [1, words], "attention_mask": [1, words + past]}
            shapes |= {name: [1, KV_HEADS, past, SIZE] for name in past_names()}
            options = [word for name, shape in shapes.items() for word in ("--shape", f"{name}={'x'.join(map(str, shape))}")]
            done = subprocess.run([OCTET, "inspect", file_of("packed"), *options, "--json"], capture_output=True, check=True, timeout=60)
            layers = [layer for layer in json.loads(done.stdout)["layers"] if "GroupQueryAttention" in layer["op"]]
            self.assertEqual([layer["impl"] for layer in layers], ["octet:group_query"] * LAYERS, (words, past))
            self.assertTrue(all(layer["macs"] > 0 for layer in layers))

    def talk(self, model, identity, ids, **parameters):
        """The same conversation with a server that keeps the past; yields its logits beside those expected."""
        steps = list(conversation(model, ids))
        for step, (arrays, expected) in enumerate(steps):
            given = {"input_ids": arrays["input_ids"], "attention_mask": arrays["attention_mask"]}
            flags = {"sequence_id": identity, "sequence_start": step == 0, "sequence_end": step == STEPS}
            got = ask(model, given, flags | parameters)
            self.assertEqual(set(got), {"logits"})
            yield got["logits"], expected["logits"]

    def test_the_server_keeps_the_past(self):
        for model in ("kept", "buffered"):
            with self.subTest(model=model):
                sizes = []
                for got, expected in self.talk(model, 7, prompt(1, 6, 5)):
                    numpy.testing.assert_allclose(got, expected, **TOLERANCE)
                    sizes.append(state_bytes(model))
                self.assertGreaterEqual(sizes[-2], 2 * LAYERS * KV_HEADS * SIZE * 4 * 10)
                self.assertEqual(sizes[-1], 0, "the sequence is over")

    def test_sequences_of_several_lengths_do_not_mix(self):
        talks = [self.talk("kept", identity, prompt(1, length, length)) for identity, length in (("a", 3), ("b", 6), ("c", 6))]
        for answers in zip(*talks, strict=True):
            for got, expected in answers:
                numpy.testing.assert_allclose(got, expected, **TOLERANCE)

    def test_sequences_of_one_length_share_batches(self):
        prompts = {identity: prompt(1, 6, identity) for identity in range(20, 27)}
        talks = {identity: list(conversation("kept", ids)) for identity, ids in prompts.items()}
        until = time.monotonic() + 60
        batches, rows = (metric(f"octet_batch_rows_{part}", "kept") for part in ("count", "sum"))
        while True:
            self.ask_at_once(talks)
            ran = metric("octet_batch_rows_count", "kept") - batches
            if metric("octet_batch_rows_sum", "kept") - rows > ran > 0:
                return
            self.assertLess(time.monotonic(), until, "each request ran alone")

    def ask_at_once(self, talks):
        """Sends the same step of every conversation before the first answer is read."""
        for step in range(STEPS + 1):
            calls = {}
            for identity, talk in talks.items():
                arrays, _ = talk[step]
                given = {"input_ids": arrays["input_ids"], "attention_mask": arrays["attention_mask"]}
                flags = {"sequence_id": identity, "sequence_start": step == 0, "sequence_end": step == STEPS}
                calls[identity] = stub.ModelInfer.future(make_request("kept", given, flags), timeout=60)
            for identity, call in calls.items():
                expected = talks[identity][step][1]["logits"]
                numpy.testing.assert_allclose(answer_of(call.result())["logits"], expected, **TOLERANCE)

    def test_in_bf16_too(self):
        for got, expected in self.talk("kept", 9, prompt(1, 6, 6), precision="bf16"):
            noise = numpy.square(got - expected).sum() / numpy.square(expected).sum()
            self.assertLess(noise, 1e-2)

    def test_the_memory_of_pasts_is_bounded(self):
        def request(identity, words, length, **flags):
            given = {"input_ids": prompt(1, words, 1), "attention_mask": mask_of(1, length)}
            return ask("bounded", given, {"sequence_id": identity, **flags})

        request(1, 8, 8, sequence_start=True)
        request(1, 1, 9)
        for _ in range(2):
            with self.assertRaises(grpc.RpcError) as refused:
                request(1, 30, 39)
            self.assertEqual(refused.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            self.assertIn("the states of all sequences need too much memory", refused.exception.details())
        request(1, 1, 10, sequence_end=True)
        request(2, 8, 8, sequence_start=True, sequence_end=True)

    def test_a_mask_that_does_not_fit_the_past_is_refused(self):
        given = {"input_ids": prompt(1, 2, 1), "attention_mask": mask_of(1, 2)}
        ask("kept", given, {"sequence_id": 99, "sequence_start": True})
        for length in (9, POSITIONS + 9):
            with self.assertRaises(grpc.RpcError) as refused:
                ask("kept", {"input_ids": prompt(1, 1, 1), "attention_mask": mask_of(1, length)}, {"sequence_id": 99})
            self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertIn(f"'total_sequence_length' is {length}, with 1 new positions and 2 past ones", refused.exception.details())
        ask("kept", {"input_ids": prompt(1, 1, 1), "attention_mask": mask_of(1, 3)}, {"sequence_id": 99, "sequence_end": True})


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
