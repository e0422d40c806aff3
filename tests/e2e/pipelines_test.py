#!/usr/bin/env python3
"""Pictures and pipelines through a server: what PIL makes of a picture, what the model says of it, and what goes wrong.

usage: pipelines_test.py OCTET
"""

import importlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import grpc
import numpy
import onnx
import PIL.Image
import served_models
from onnx import TensorProto, helper
from real_models import MODELS, SHARED
from served_client import ServedClient

OCTET = ""
SIDE = 96
client = models = stub = messages = None
INFER = "/v2/models/pictures/infer"
IMAGES, TRUTH = served_models.load_test_set()
# The mapping of demo/models/glyphs/model.yaml: (pixel - 127.5) / 127.5.
DECODE_GLYPH = "decode: {inputs: {picture: photo}, preprocess: {scale: 1, mean: 127.5, std: 127.5}}"
CLASSIFY = "model: glyphs, inputs: {image: decode.tensor}"

PIPELINES = {
    "pictures": f"steps: {{{DECODE_GLYPH}, classify: {{{CLASSIFY}, precision: fp32}}}}, outputs: {{scores: classify.logits}}",
    "both": f"steps: {{{DECODE_GLYPH}, exact: {{{CLASSIFY}, precision: fp32}}, fast: {{{CLASSIFY}, precision: int8}}, "
    "add: {model: sum, inputs: {a: exact.logits, b: fast.logits}}}, "
    "outputs: {sum: add.y, exact: exact.logits, fast: fast.logits}",
    "nested": "steps: {inner: {model: pictures}, add: {model: sum, inputs: {a: inner.scores, b: inner.scores}}}, outputs: {y: add.y}",
    "cropped": "steps: {decode: {preprocess: {resize: 120, scale: 1}}, echo: {model: echo, inputs: {x: decode.tensor}}}, "
    "outputs: {pixels: echo.y}",
    "stretched": "steps: {decode: {preprocess: {scale: 1, channels: BGR, max_pixels: 2000000}}, "
    "echo: {model: echo, inputs: {x: decode.tensor}}}, outputs: {pixels: echo.y}",
    "upright": "steps: {decode: {preprocess: {scale: 1, upright: true}}, echo: {model: echo, inputs: {x: decode.tensor}}}, "
    "outputs: {pixels: echo.y}",
    "incomplete": "steps: {a: {model: nobody}}, outputs: {y: a.y}",
}


def write_model(path, node, inputs, shape):
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in [*inputs, "y"]]
    model = helper.make_model(helper.make_graph([node], "net", tensors[:-1], tensors[-1:]),
                              opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


def write_models(folder):
    repository = served_models.make_repository(OCTET, folder)
    write_model(repository / "echo/1/fp32.onnx", helper.make_node("Abs", ["x"], ["y"]), ["x"], ["n", 3, SIDE, SIDE])
    write_model(repository / "sum/1/fp32.onnx", helper.make_node("Add", ["a", "b"], ["y"]), ["a", "b"], ["n", len(served_models.LABELS)])
    for name, pipeline in PIPELINES.items():
        (repository / name).mkdir()
        (repository / name / "model.yaml").write_text(f"pipeline: {{{pipeline}}}\n")


def setUpModule():
    global client, models, stub, messages
    options = [("grpc.max_send_message_length", -1)]
    client = ServedClient(OCTET, fill=write_models, configuration="batching: {max_batch: 16}\n", options=options)
    models, stub, messages = client.folder / "models", client.stub, client.messages


def tearDownModule():
    client.close()


def as_file(pixels, kind="PNG", **options):
    """Returns the file of an array [H, W, 3] or a PIL picture."""
    picture = pixels if isinstance(pixels, PIL.Image.Image) else PIL.Image.fromarray(pixels)
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def to_wire(files):
    return b"".join(len(file).to_bytes(4, "little") + file for file in files)


def picture_request(model, files, name="photo"):
    request = messages.ModelInferRequest(model_name=model)
    request.inputs.add(name=name, datatype="BYTES", shape=[len(files), 1])
    request.raw_input_contents.append(to_wire(files))
    return request


def tensor(response, index=0):
    shape = response.outputs[index].shape
    return numpy.frombuffer(response.raw_output_contents[index], numpy.float32).reshape(shape)


def ask(model, files, name="photo"):
    """Returns the first output."""
    return tensor(stub.ModelInfer(picture_request(model, files, name), timeout=60))


def glyphs(reals, precision="fp32"):
    """Returns what the member model answers to its own tensor."""
    request = messages.ModelInferRequest(model_name="glyphs")
    request.inputs.add(name="image", datatype="FP32", shape=reals.shape)
    request.parameters["precision"].string_param = precision
    request.raw_input_contents.append(reals.astype(numpy.float32).tobytes())
    return tensor(stub.ModelInfer(request, timeout=60))


def reals_of(files):
    """Returns what a client would have sent: PIL's pixels as the model's reals."""
    pixels = [numpy.asarray(PIL.Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
    return (numpy.stack(pixels).transpose(0, 3, 1, 2).astype(numpy.float32) - 127.5) / 127.5


def glyph_files(kind, start=0, count=8, **options):
    return [as_file(image.transpose(1, 2, 0), kind, **options) for image in IMAGES[start : start + count]]


def in_flight(server, model):
    """Returns how many requests a server has accepted for a pipeline and not answered."""
    series = rf'^octet_in_flight_requests{{model="{model}",version="1",precision="pipeline"}} (\S+)$'
    return float(re.search(series, server.metrics_page(), re.M)[1])


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    return None, ""


class AnswersTest(unittest.TestCase):
    def test_pictures_answer_as_the_tensor_does(self):
        for kind, options in (("PNG", {}), ("JPEG", {"quality": 90}), ("JPEG", {"quality": 95, "progressive": True})):
            right = 0
            for start in range(0, 128, 8):
                files = glyph_files(kind, start, **options)
                answer = ask("pictures", files)
                expected = glyphs(reals_of(files))
                numpy.testing.assert_allclose(answer, expected, rtol=0.02, atol=0.02)
                numpy.testing.assert_array_equal(answer.argmax(1), expected.argmax(1))
                right += int((answer.argmax(1) == TRUTH[start : start + 8]).sum())
            self.assertGreater(right, 0.9 * 128, kind)

    def test_classification_names_the_classes(self):
        request = picture_request("pictures", glyph_files("PNG", 0, 3))
        request.outputs.add(name="scores").parameters["classification"].int64_param = 2
        response = stub.ModelInfer(request, timeout=60)
        self.assertEqual(list(response.outputs[0].shape), [3, 2])
        best = glyphs(reals_of(glyph_files("PNG", 0, 3))).argmax(1)
        raw, labels = response.raw_output_contents[0], []
        while raw:
            length = int.from_bytes(raw[:4], "little")
            labels.append(raw[4 : 4 + length].decode().split(":"))
            raw = raw[4 + length :]
        self.assertEqual([int(label[1]) for label in labels[::2]], best.tolist())
        self.assertEqual([label[2] for label in labels[::2]], [served_models.LABELS[i] for i in best])

    def test_each_step_has_its_precision(self):
        files = glyph_files("PNG")
        response = stub.ModelInfer(picture_request("both", files), timeout=60)
        self.assertEqual([output.name for output in response.outputs], ["sum", "exact", "fast"])
        total, exact, fast = (tensor(response, index) for index in range(3))
        numpy.testing.assert_allclose(exact, glyphs(reals_of(files), "fp32"), rtol=0.02, atol=0.02)
        numpy.testing.assert_allclose(fast, glyphs(reals_of(files), "int8"), rtol=0.02, atol=0.02)
        self.assertFalse(numpy.array_equal(exact, fast))
        numpy.testing.assert_allclose(total, exact + fast, rtol=1e-5)

    def test_a_pipeline_is_a_step(self):
        files = glyph_files("PNG")
        numpy.testing.assert_allclose(ask("nested", files), 2 * ask("pictures", files), rtol=1e-5)

    def test_rest_takes_pictures(self):
        files = glyph_files("JPEG", 0, 2)
        wire = to_wire(files)
        head = json.dumps({
            "inputs": [{"name": "photo", "datatype": "BYTES", "shape": [2, 1], "parameters": {"binary_data_size": len(wire)}}]
        }).encode()
        status, _, body = client.ask("POST", INFER, head + wire, {"Inference-Header-Content-Length": str(len(head))})
        self.assertEqual(status, 200, body)
        numpy.testing.assert_allclose(json.loads(body)["outputs"][0]["data"], ask("pictures", files).ravel(), rtol=1e-4, atol=1e-4)

    def test_rest_takes_a_picture_as_it_is(self):
        (picture,) = files = glyph_files("PNG", 0, 1)
        status, headers, body = client.ask("POST", INFER, picture, {"Inference-Header-Content-Length": "0"})
        self.assertEqual(status, 200, body)
        scores = numpy.frombuffer(body[int(headers["Inference-Header-Content-Length"]) :], numpy.float32)
        numpy.testing.assert_allclose(scores, ask("pictures", files).ravel(), rtol=1e-4, atol=1e-4)


def noise(height, width, seed):
    """Returns a picture with detail: PIL's own resampling of noise."""
    random = numpy.random.default_rng(seed)
    small = random.integers(0, 256, (height // 3 + 1, width // 3 + 1, 3), numpy.uint8)
    return PIL.Image.fromarray(small).resize((width, height), PIL.Image.BICUBIC)


def centred(picture, shorter, side):
    """Returns torchvision's Resize(shorter) and CenterCrop(side) by PIL."""
    width, height = picture.size
    least = min(width, height)
    picture = picture.resize((shorter * width // least, shorter * height // least), PIL.Image.BILINEAR)
    left, top = (round((extent - side) / 2) for extent in picture.size)
    return picture.crop((left, top, left + side, top + side))


class ResizeTest(unittest.TestCase):
    """Pixels against PIL's."""

    SIZES = [(97, 97), (150, 400), (333, 121), (1200, 900), (60, 40), (1, 1), (3, 700)]

    def off(self, model, files, expected, name="picture"):
        """Returns the largest distance from PIL's pixels."""
        answer = ask(model, files, name).transpose(0, 2, 3, 1)
        wanted = numpy.stack([numpy.asarray(picture.convert("RGB")) for picture in expected])
        return abs(answer - wanted).max()

    def test_resize_and_crop(self):
        for height, width in self.SIZES:
            picture = noise(height, width, height)
            with self.subTest(size=picture.size):
                self.assertLessEqual(self.off("cropped", [as_file(picture)], [centred(picture, 120, SIDE)]), 1)

    def test_stretch_and_bgr(self):
        for height, width in self.SIZES:
            picture = noise(height, width, width)
            with self.subTest(size=picture.size):
                blue = PIL.Image.merge("RGB", picture.resize((SIDE, SIDE), PIL.Image.BILINEAR).split()[::-1])
                self.assertLessEqual(self.off("stretched", [as_file(picture)], [blue]), 1)

    def test_a_large_jpeg_is_decoded_smaller(self):
        for options in ({"quality": 92}, {"quality": 85, "progressive": True, "subsampling": "4:2:0"}):
            file = as_file(noise(1501, 1999, 5), "JPEG", **options)
            self.assertLessEqual(self.off("cropped", [file], [centred(PIL.Image.open(io.BytesIO(file)).convert("RGB"), 120, SIDE)]), 3)

    def test_every_kind_of_picture_as_pil_opens_it(self):
        picture = noise(SIDE, SIDE, 9)
        alpha = picture.copy()
        alpha.putalpha(PIL.Image.linear_gradient("L").resize((SIDE, SIDE)))
        files = [
            as_file(picture.convert("L")), as_file(picture.convert("1")), as_file(picture.convert("P")), as_file(alpha),
            as_file(picture.convert("LA")), as_file(picture.convert("L"), "JPEG"), as_file(picture.convert("CMYK"), "JPEG"),
            as_file(picture.convert("P"), transparency=3),
        ]
        opened = [PIL.Image.open(io.BytesIO(file)).convert("RGB") for file in files]
        blue = [PIL.Image.merge("RGB", one.split()[::-1]) for one in opened]
        for index, (file, expected) in enumerate(zip(files, blue, strict=True)):
            with self.subTest(index):
                self.assertLessEqual(self.off("stretched", [file], [expected]), 1)

    def test_grey_of_16_bits_is_its_upper_8_where_pil_cuts_off(self):
        deep = numpy.linspace(0, 65535, SIDE * SIDE).astype(numpy.uint16).reshape(SIDE, SIDE)
        file = as_file(PIL.Image.fromarray(deep))
        opened = PIL.Image.open(io.BytesIO(file))
        self.assertEqual(opened.mode, "I;16")
        self.assertEqual(numpy.asarray(opened.convert("L")).tolist(), numpy.minimum(deep, 255).tolist(), "PIL's, which this is not")
        upper = PIL.Image.fromarray((deep >> 8).astype(numpy.uint8))
        self.assertEqual(self.off("stretched", [file], [upper]), 0)

    def test_orientation(self):
        for orientation in range(1, 9):
            exif = PIL.Image.Exif()
            exif[0x0112] = orientation
            file = as_file(noise(SIDE, SIDE, 11), "JPEG", exif=exif, quality=95)
            opened = PIL.Image.open(io.BytesIO(file))
            turned = importlib.import_module("PIL.ImageOps").exif_transpose(opened)
            with self.subTest(orientation):
                self.assertLessEqual(self.off("upright", [file], [turned]), 1)
                plain = PIL.Image.merge("RGB", opened.convert("RGB").split()[::-1])
                self.assertLessEqual(self.off("stretched", [file], [plain]), 1)


class ProtocolTest(unittest.TestCase):
    def test_metadata_and_configuration(self):
        metadata = stub.ModelMetadata(messages.ModelMetadataRequest(name="pictures"))
        self.assertEqual((metadata.platform, list(metadata.versions)), ("octet_pipeline", ["1"]))
        self.assertEqual([(t.name, t.datatype, list(t.shape)) for t in metadata.inputs], [("photo", "BYTES", [-1, 1])])
        self.assertEqual([(t.name, t.datatype, list(t.shape)) for t in metadata.outputs], [("scores", "FP32", [-1, len(served_models.LABELS)])])
        config = stub.ModelConfig(messages.ModelConfigRequest(name="pictures")).config
        self.assertEqual((config.platform, config.max_batch_size), ("octet_pipeline", 16))
        self.assertEqual(list(config.input[0].dims), [1])

    def test_requests_are_counted_for_the_pipeline_and_for_its_steps(self):
        def counts(model):
            answer = stub.ModelStatistics(messages.ModelStatisticsRequest(name=model)).model_stats[0]
            return answer.inference_count, answer.inference_stats.success.count

        before = counts("pictures"), counts("glyphs")
        ask("pictures", glyph_files("PNG", 0, 4))
        after = counts("pictures"), counts("glyphs")
        for old, new in zip(before, after, strict=True):
            self.assertEqual((new[0] - old[0], new[1] - old[1]), (4, 1))
        text = client.server.metrics_page()
        for model, precision in (("pictures", "pipeline"), ("pictures/decode", "preprocess")):
            series = f'octet_requests_total{{model="{model}",version="1",precision="{precision}",code="OK"}} '
            self.assertEqual([line for line in text.splitlines() if line == series + "0"], [])
            self.assertEqual(len([line for line in text.splitlines() if line.startswith(series)]), 1)

    def test_a_pipeline_has_no_precisions_to_compare_or_roll_out(self):
        def experiments(path):
            return client.ask_json("GET", path)[1]["experiments"]

        names = {experiment["model"] for experiment in experiments("/v2/experiments")}
        self.assertLessEqual({"glyphs", "pictures"}, names)
        ask("pictures", glyph_files("PNG", 0, 4))
        (pictures,) = experiments("/v2/models/pictures/experiments")
        self.assertEqual(pictures["precisions"], [])
        self.assertGreaterEqual(pictures["pipeline"]["latency_us"]["count"], 1)
        command = [OCTET, "rollout", "pictures", "--server", client.server.http, "--repository", models, "--to", "int8"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("a pipeline has no precisions of its own", done.stderr)

    def test_what_cannot_be_linked_is_in_the_index(self):
        rows = {row.name: row for row in stub.RepositoryIndex(messages.RepositoryIndexRequest()).models}
        self.assertEqual(rows["incomplete"].state, "UNAVAILABLE")
        self.assertIn("step \"a\": Request for unknown model: 'nobody'", rows["incomplete"].reason)
        self.assertEqual(rows["both"].state, "READY")

    def test_bad_requests(self):
        file = glyph_files("PNG", 0, 1)
        request = picture_request("pictures", file)
        request.parameters["precision"].string_param = "int8"
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        for made, words in (
            (request, "is a pipeline: its steps have precisions"),
            (picture_request("pictures", file * 17), "batch size, expected at most 16, got 17"),
            (picture_request("pictures", []), "expected at least 1, got 0"),
            (picture_request("pictures", file, "picture"), 'unknown input "picture", expected "photo"'),
        ):
            code, details = code_of(lambda made=made: stub.ModelInfer(made, timeout=60))
            self.assertEqual(code, invalid)
            self.assertIn(words, details)

    def test_hostile_pictures(self):
        good = glyph_files("PNG", 0, 1)[0]
        huge = as_file(PIL.Image.new("1", (2000, 1001)))
        for file, words in (
            (b"", "picture 1: neither a JPEG nor a PNG: 0 bytes"),
            (b"GIF89a", "picture 1: neither a JPEG nor a PNG"),
            (good[:40], "picture 1: PNG: damaged or cut off"),
            (as_file(noise(50, 50, 1), "JPEG")[:-400], "picture 1: JPEG: damaged or cut off: Premature end"),
            (huge, "picture 1: PNG: size, expected at most 2000000 pixels, got 2000 x 1001"),
        ):
            code, details = code_of(lambda file=file: ask("stretched", [good, file], "picture"))
            self.assertEqual(code, grpc.StatusCode.INVALID_ARGUMENT)
            self.assertIn('step "decode": ', details)
            self.assertIn(words, details)
        for files in ([good] * 17, []):
            code, details = code_of(lambda files=files: ask("stretched", files, "picture"))
            self.assertEqual(code, grpc.StatusCode.INVALID_ARGUMENT)


class LimitsTest(unittest.TestCase):
    def decoding(self):
        """Returns the metrics of the step, by name and code."""
        text = client.server.metrics_page()
        labels = re.escape('model="stretched/decode",version="1",precision="preprocess"')
        return {name + code: float(value) for name, code, value in re.findall(rf'^(\w+){{{labels}(?:,code="(\w+)")?}} (\S+)$', text, re.M)}

    def wait_for(self, condition):
        """Returns the metrics that meet it."""
        until = time.monotonic() + 20
        while not condition(values := self.decoding()):
            self.assertLess(time.monotonic(), until)
        return values

    def test_decoding_ends_when_its_client_has_gone(self):
        request = picture_request("stretched", [as_file(noise(1000, 1990, 3))] * 12, "picture")
        before = self.decoding()
        call = stub.ModelInfer.future(request, timeout=60)
        self.wait_for(lambda now: now["octet_in_flight_requests"] == 1 and now["octet_queue_depth"] == 0)
        call.cancel()
        after = self.wait_for(lambda now: now["octet_in_flight_requests"] == 0)
        self.assertEqual(after["octet_requests_totalCANCELLED"], before["octet_requests_totalCANCELLED"] + 1)
        self.assertEqual(after["octet_executions_total"], before["octet_executions_total"] + 1)


class ReloadTest(unittest.TestCase):
    def test_a_member_reloads_under_load(self):
        files = glyph_files("JPEG")
        expected = ask("pictures", files)
        stop, mistakes, answered = threading.Event(), [], [0] * 4

        def client(index):
            while not stop.is_set():
                try:
                    answer = ask("pictures", files)
                except grpc.RpcError as error:
                    mistakes.append(error.details())
                    continue
                if not numpy.allclose(answer, expected, rtol=1e-3, atol=1e-3):
                    mistakes.append("another answer")
                answered[index] += 1

        threads = [threading.Thread(target=client, args=[index]) for index in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            seen = sum(answered)
            os.utime(models / "glyphs/1/fp32.onnx")
            stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name="glyphs"), timeout=60)
            while sum(answered) == seen and not mistakes:
                stop.wait(0.01)
        until = time.monotonic() + 60
        while min(answered) == 0 and not mistakes and time.monotonic() < until:
            stop.wait(0.01)
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(mistakes, [])
        self.assertGreater(min(answered), 0)

    def test_without_its_member_it_is_unavailable(self):
        files = glyph_files("PNG", 0, 1)
        stub.RepositoryModelUnload(messages.RepositoryModelUnloadRequest(model_name="sum"), timeout=60)
        try:
            code, details = code_of(lambda: ask("both", files))
            self.assertEqual(code, grpc.StatusCode.UNAVAILABLE)
            self.assertIn('step "add": Model is not ready (unloaded)', details)
            self.assertFalse(stub.ModelReady(messages.ModelReadyRequest(name="both")).ready)
            self.assertTrue(stub.ModelReady(messages.ModelReadyRequest(name="pictures")).ready)
        finally:
            stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name="sum"), timeout=60)
        self.assertTrue(stub.ModelReady(messages.ModelReadyRequest(name="both")).ready)
        ask("both", files)

    def test_a_drain_finishes_what_was_accepted(self):
        with tempfile.TemporaryDirectory() as other:
            repository = pathlib.Path(other) / "models"
            for name in ("glyphs", "pictures"):
                shutil.copytree(models / name, repository / name)
            drained = served_models.server.Server(OCTET, repository, other)
            with drained, grpc.insecure_channel(drained.grpc) as line:
                service = importlib.import_module("proto.inference_pb2_grpc").GRPCInferenceServiceStub(line)
                # So large that most of the work is still to be done when the server has accepted some.
                files = [as_file(PIL.Image.open(io.BytesIO(file)).resize((1500, 1500))) for file in glyph_files("PNG", 0, 4)]
                calls = [service.ModelInfer.future(picture_request("pictures", files), timeout=60) for _ in range(16)]
                until = time.monotonic() + 60
                while in_flight(drained, "pictures") < 6:
                    self.assertLess(time.monotonic(), until)
                waiting = [call for call in calls if not call.done()]
                drained.stop()
                # Steps followed the signal: more requests than run at a time were answered after it.
                self.assertGreater(sum(call.exception() is None for call in waiting), 2)
                codes = {call.exception().code() for call in calls if call.exception() is not None}
                # What had arrived is answered, what had not is told to try elsewhere; nothing is lost half-way.
                self.assertLessEqual(codes, {grpc.StatusCode.UNAVAILABLE})
                for call in calls:
                    if call.exception() is not None:
                        self.assertNotIn('step "classify"', call.exception().details())


@unittest.skipUnless((SHARED / "models").is_dir(), "no real models here")
class RealModelTest(unittest.TestCase):
    """A trained model, and labelled pictures of the size of its input."""

    def test_mobilenet_says_the_same_of_the_picture(self):
        model = MODELS["mobilenetv2"]
        with numpy.load(model.eval_data) as data:
            images, truth = data["inputs"], data["labels"]
        shutil.copytree(model.folder, models / "mobilenetv2", ignore=shutil.ignore_patterns("golden"))
        (models / "photos").mkdir()
        (models / "photos/model.yaml").write_text(
            "pipeline: {steps: {decode: {preprocess: {scale: 1, mean: 127.5, std: 127.5}}, "
            "classify: {model: mobilenetv2, precision: int8, inputs: {input: decode.tensor}}}, "
            f"outputs: {{scores: classify.{onnx.load(model.fp32, load_external_data=False).graph.output[0].name}}}}}\n"
        )
        for name in ("mobilenetv2", "photos"):
            stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name=name), timeout=200)
        agreed = right = 0
        for start in range(0, 48, 8):
            pictures = [PIL.Image.fromarray(image.transpose(1, 2, 0)) for image in images[start : start + 8]]
            answer = ask("photos", [as_file(picture) for picture in pictures], "picture")
            request = messages.ModelInferRequest(model_name="mobilenetv2")
            request.parameters["precision"].string_param = "int8"
            request.inputs.add(name="input", datatype="FP32", shape=[8, 3, 224, 224])
            reals = (images[start : start + 8].astype(numpy.float32) - numpy.float32(127.5)) / numpy.float32(127.5)
            request.raw_input_contents.append(reals.tobytes())
            expected = tensor(stub.ModelInfer(request, timeout=60))
            agreed += int((answer.argmax(1) == expected.argmax(1)).sum())
            right += int((answer.argmax(1) == truth[start : start + 8]).sum())
        self.assertEqual(agreed, 48)
        self.assertGreater(right, 24)


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
