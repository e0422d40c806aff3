#!/usr/bin/env python3
"""Changes all that can change under a server at once, and holds each answer against that of the file which it names.

usage: everything_at_once_test.py OCTET
"""

import collections
import contextlib
import http.client
import itertools
import json
import math
import queue
import re
import shutil
import threading
import time
import urllib.request

import numpy
import server_test_case
import small_models
from server_test_case import ServerTestCase
from small_models import Caller

CHANGES = 10
EXTENT = 256
WIDTH = 24  # of the inputs: bits of a request's identity
PRECISIONS = ["fp32", "fp16", "bf16", "int8"]
# Weights and versions of this model change all the time.
NET = """
routing:
  default: fp32
  split: {{fp32: {fp32}, fp16: 2, bf16: {bf16}, int8: 3}}
  sticky: {{parameter: user}}
  shadow: {{precision: int8, against: fp32, percent: 100}}
capture: {{percent: 100, max_bytes: 1048576}}
"""
# This one is left alone, so that its guard goes on. The rule cannot be kept to.
HELD = "routing: {default: fp32, split: {fp32: 1, int8: 1}}\n"
GUARD = "  guard: {int8: {p99_us: 1, window_seconds: 1, min_samples: 10, recover_windows: 0, action: fall_back}}\n"
GUARDED = "routing:\n  default: fp32\n  split: {fp32: 1, int8: 1}\n" + GUARD
FELL_BACK = "event=guard_action variant=held/1/int8 action=fall_back"


def factor(model, version, precision):
    """What the file multiplies by: exact in bf16 and int8, and another one for each file."""
    return 1 + PRECISIONS.index(precision) + (4 * int(version) if model == "net" else 0)


def write_file(folder, model, version, precision):
    write = small_models.write_quantized if precision == "int8" else small_models.write_heavy
    write(folder / f"{precision}.onnx", factor(model, version, precision), EXTENT, WIDTH)


def input_of(identity):
    """Returns the input that a request and nobody else has: bit i of its identity is x[i] - 1."""
    return (1 + (identity >> numpy.arange(WIDTH) & 1)).astype(numpy.float32)


def identities_of(rows):
    """Returns whose inputs these are. ValueError for rows that are nobody's."""
    bits = rows.astype(numpy.int64) - 1
    if rows.shape[1:] != (WIDTH,) or not numpy.array_equal(rows, 1 + (bits & 1)):
        raise ValueError(f"no client's input: {rows}")
    return (bits << numpy.arange(WIDTH)).sum(axis=1).tolist()


Question = collections.namedtuple("Question", "identity model user late")


class Client(threading.Thread):
    """Asks without a pause, a quarter of it the model that is left alone; each answer is checked when it comes."""

    def __init__(self, number, traffic):
        super().__init__()
        self.number, self.traffic = number, traffic
        self.wrong, self.errors = [], []
        self.asked = self.answered = 0
        self.answers = collections.defaultdict(set)  # (model, version, precision) -> identities
        self.late = collections.Counter()  # precisions of the model that is left alone, of what was asked after its guard

    def run(self):
        try:
            self.converse()
        except Exception as error:  # noqa: BLE001  Each one is a request that was lost.
            self.errors.append(repr(error))

    def questions(self):
        """Yields what is to be asked next, until the traffic stops."""
        for count in itertools.count():
            if self.traffic.stopped.is_set():
                return
            self.asked += 1
            user = f"user {self.number}" if count % 3 == 0 else None
            model = "held" if count % 4 == 0 else "net"
            yield Question(count << 5 | self.number, model, user, self.traffic.fallen_back.is_set())

    def check(self, question, identity, name, output):
        """Takes an answer: `name` is (model, version, precision)."""
        self.answered += 1
        expected = input_of(question.identity) * factor(*name)
        if (identity, name[0]) != (str(question.identity), question.model) or not numpy.array_equal(output, expected):
            self.wrong.append((question, identity, name, output))
        self.answers[name].add(question.identity)
        if question.late and name[0] == "held":
            self.late[name[2]] += 1


class RemoteCaller(Client):
    """One call of gRPC after the other."""

    def message(self, caller, question):
        message = caller.messages.ModelInferRequest(model_name=question.model, id=str(question.identity))
        message.inputs.add(name="x", datatype="FP32", shape=[1, WIDTH])
        message.raw_input_contents.append(input_of(question.identity).tobytes())
        if question.user:
            message.parameters["user"].string_param = question.user
        return message

    def check_message(self, question, answer):
        name = (answer.model_name, answer.model_version, answer.parameters["precision"].string_param)
        self.check(question, answer.id, name, numpy.frombuffer(answer.raw_output_contents[0], numpy.float32))

    def converse(self):
        caller = Caller(self.traffic.running.grpc)
        for question in self.questions():
            self.check_message(question, caller.stub.ModelInfer(self.message(caller, question), timeout=30))


class Streamer(RemoteCaller):
    """One stream of gRPC with a few requests under way."""

    UNDER_WAY = 4

    def converse(self):
        caller = Caller(self.traffic.running.grpc)
        sent, under_way = queue.SimpleQueue(), collections.deque()
        questions = self.questions()

        def send():
            question = next(questions, None)
            if question is not None:
                under_way.append(question)
            sent.put(question and self.message(caller, question))

        for _ in range(self.UNDER_WAY):
            send()
        for answer in caller.stub.ModelStreamInfer(iter(sent.get, None), timeout=200):
            if answer.error_message:
                raise RuntimeError(answer.error_message)
            self.check_message(under_way.popleft(), answer.infer_response)
            send()
        if under_way:
            raise RuntimeError(f"the stream ended before {under_way}")


class RestCaller(Client):
    """One request in JSON after the other on one connection."""

    def converse(self):
        with contextlib.closing(http.client.HTTPConnection(self.traffic.running.http, timeout=30)) as connection:
            self.converse_on(connection)

    def converse_on(self, connection):
        for question in self.questions():
            data = input_of(question.identity).tolist()
            body = {"id": str(question.identity), "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, WIDTH], "data": data}]}
            if question.user:
                body["parameters"] = {"user": question.user}
            connection.request("POST", f"/v2/models/{question.model}/infer", json.dumps(body))
            answer = json.loads(connection.getresponse().read())
            if "error" in answer:
                raise RuntimeError(answer["error"])
            name = (answer["model_name"], answer["model_version"], answer["parameters"]["precision"])
            self.check(question, answer["id"], name, numpy.array(answer["outputs"][0]["data"], numpy.float32))


CLIENTS = [RemoteCaller] * 16 + [Streamer] * 8 + [RestCaller] * 8


class Looker(threading.Thread):
    """Asks without end what dashboards and operators ask for."""

    def __init__(self, traffic, look):
        super().__init__()
        self.traffic, self.look = traffic, look
        self.looks, self.errors = 0, []

    def run(self):
        while not self.traffic.stopped.wait(0.005):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001
                self.errors.append(f"{self.look.__name__}: {error!r}")
                return
            self.looks += 1


class Looks:
    """What is asked, and what must hold at every moment. Each method is one thread's."""

    SERIES = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
    LABEL = re.compile(r'(\w+)="([^"]*)"')

    def __init__(self, running):
        self.running = running
        self.by_index, self.by_statistics = Caller(running.grpc), Caller(running.grpc)
        self.inferences = {}  # (model, version) -> what its statistics said last
        self.events = set()  # (who, what) of guards
        self.series = {}  # (name, *(label, value)) -> the last value; those of a version that is gone are no longer told

    def _get(self, address, path):
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as page:
            return page.read().decode()

    def index(self):
        rows = self.by_index.index()
        ready = {model for (model, _), (state, _) in rows.items() if state == "READY"}
        if ready != {"net", "held"} or rows["held", "1"][0] != "READY":
            raise AssertionError(rows)

    def statistics(self):
        request = self.by_statistics.messages.ModelStatisticsRequest()
        rows = self.by_statistics.stub.ModelStatistics(request, timeout=10).model_stats
        inferences = {(row.name, row.version): row.inference_count for row in rows}
        self._keep(self.inferences, inferences, inferences)
        if {model for model, _ in inferences} != {"net", "held"}:
            raise AssertionError(inferences)

    def experiments(self):
        experiments = json.loads(self._get(self.running.http, "/v2/experiments"))["experiments"]
        self.events |= {(event["who"], event["action"]) for one in experiments for event in one["events"]}
        if {one["model"] for one in experiments} != {"net", "held"}:
            raise AssertionError(experiments)

    def metrics(self):
        series = {}
        for name, labels, value in self.SERIES.findall(self._get(self.running.metrics, "/metrics")):
            series[name, *self.LABEL.findall(labels)] = float(value)
        self._keep(self.series, series, {key for key in series if key[0].endswith("_total")})
        return series

    @staticmethod
    def _keep(before, now, counters):
        for key in counters:
            if now[key] < before.get(key, 0):
                raise AssertionError(f"{key} was {before[key]} and is {now[key]}")
        before.update(now)

    def total(self, name, **labels):
        """Returns the sum of the last values of the series of this name that have these labels."""
        return sum(value for key, value in self.series.items() if key[0] == name and set(labels.items()) <= set(key[1:]))


class Traffic:
    """32 clients, and those who look on."""

    def __init__(self, running):
        self.running = running
        self.stopped, self.fallen_back = threading.Event(), threading.Event()
        self.clients = [kind(number, self) for number, kind in enumerate(CLIENTS)]
        self.looks = Looks(running)
        looks = (self.looks.index, self.looks.statistics, self.looks.experiments, self.looks.metrics)
        self.lookers = [Looker(self, look) for look in looks]

    def __enter__(self):
        for thread in self.clients + self.lookers:
            thread.start()
        return self

    def __exit__(self, kind, error, trace):
        self.stopped.set()
        for thread in self.clients + self.lookers:
            thread.join()

    def answers(self):
        """Returns {(model, version, precision): identities} of all clients."""
        answers = collections.defaultdict(set)
        for client in self.clients:
            for name, identities in client.answers.items():
                answers[name] |= identities
        return answers

    def late(self):
        return sum((client.late for client in self.clients), collections.Counter())

    def has_seen_enough(self):
        """Whether enough was asked behind the guard, and everything was looked at often enough, or never will be."""
        return self.late().total() >= 400 and all(looker.looks > CHANGES or looker.errors for looker in self.lookers)


class EverythingAtOnceTest(ServerTestCase):
    def write_version(self, version):
        """The folder appears as a whole."""
        hidden = self.models / f"net/.{version}"
        for precision in PRECISIONS:
            write_file(hidden, "net", version, precision)
        hidden.rename(self.models / f"net/{version}")

    def write_config(self, model, text):
        part = self.models / model / ".model.yaml"
        part.write_text(text)
        part.rename(self.models / model / "model.yaml")

    def write_weights(self, number):
        self.write_config("net", NET.format(fp32=1 + number, bf16=1 + CHANGES - number))

    def prepare(self):
        """Writes the models; returns the server's configuration."""
        (self.models / "net").mkdir()
        self.write_version(1)
        self.write_weights(0)
        for precision in ("fp32", "int8"):
            write_file(self.models / "held/1", "held", 1, precision)
        self.write_config("held", HELD)
        self.captures = self.folder / "captures"
        self.captures.mkdir(mode=0o700)
        return f"capture: {{path: {self.captures}}}\n"

    def change_everything(self, running, traffic):
        """Other weights and another version, ten times; between the first and the last of them a guard falls back. Other weights for
        the version that stays, so that copies for it are counted that a load has dropped."""
        caller = Caller(running.grpc)
        for number in range(1, CHANGES + 1):
            if number == CHANGES:
                self.wait_for(lambda: FELL_BACK in running.log.read_text(), "the guard did not fall back")
            if FELL_BACK in running.log.read_text() and not traffic.fallen_back.is_set():
                print("the guard fell back before change", number)
                traffic.fallen_back.set()
            self.write_weights(number)
            caller.load("net")
            time.sleep(0.1)
            self.write_version(number + 1)
            caller.load("net")
            shutil.rmtree(self.models / f"net/{number}")
            if number == 1:
                self.write_config("held", GUARDED)
                caller.load("held")
            time.sleep(0.1)
        self.write_weights(0)
        caller.load("net")

    def wait_for(self, condition, what):
        until = time.monotonic() + 30
        while not condition():
            self.assertLess(time.monotonic(), until, what)
            time.sleep(0.05)

    def test_nothing_is_lost_and_nothing_is_wrong(self):
        running = self.start(self.prepare())
        with Traffic(running) as traffic:
            self.change_everything(running, traffic)
            self.wait_for(traffic.has_seen_enough, "nobody asks or looks any more")
        self.check_clients(traffic)
        traffic.looks.experiments()  # behind the last event
        self.let_copies_end(traffic)
        self.check_guard(running, traffic)
        self.check_counts(traffic)
        self.check_shadow(traffic)
        running.stop()
        self.assertIn("all_answered=true", running.log.read_text())
        self.check_captures(traffic)

    def check_clients(self, traffic):
        for client in traffic.clients:
            self.assertEqual((client.errors, client.wrong[:1]), ([], []), type(client).__name__)
            self.assertEqual(client.asked, client.answered, type(client).__name__)
            self.assertGreater(client.answered, 0)
        for looker in traffic.lookers:
            self.assertEqual(looker.errors, [])
            self.assertGreater(looker.looks, CHANGES, looker.look.__name__)
        print({looker.look.__name__: looker.looks for looker in traffic.lookers})
        answers = traffic.answers()
        last = CHANGES + 1
        self.assertEqual({version for model, version, _ in answers if model == "net"}, {str(version) for version in range(1, last + 1)})
        self.assertEqual({precision for model, _, precision in answers if model == "net"}, set(PRECISIONS))

    def let_copies_end(self, traffic):
        """Reads the metrics until each answer of the version that is served has had its copy, and nothing counts any more."""
        served, before = str(CHANGES + 1), {}
        answered = len(traffic.answers()["net", served, "fp32"])
        until = time.monotonic() + 30
        while (now := traffic.looks.metrics()) != before or self.copies(traffic, served) < answered:
            self.assertLess(time.monotonic(), until, "the metrics do not come to rest, or copies are lost")
            before = now
            time.sleep(0.3)

    def copies(self, traffic, version):
        """Returns how many copies of the model's answers were compared or dropped."""
        names = ("octet_shadow_compared_requests_total", "octet_shadow_dropped_requests_total")
        return sum(traffic.looks.total(name, model="net", version=version) for name in names)

    def check_guard(self, running, traffic):
        """It acted while the other model changed, and whoever asked later was answered by the other precision."""
        log = running.log.read_text()
        first, *_, last = (match.start() for match in re.finditer(r"event=version_ready model=net version=\d+ ", log))
        happened = [first, log.rindex("event=model_config_read model=held"), log.index(FELL_BACK), log.index(f"model=net version={CHANGES + 1} "), last]
        self.assertEqual(happened, sorted(happened), "not at once")
        self.assertEqual(set(traffic.late()), {"fp32"})
        self.assertIn(("held", "1", "int8"), traffic.answers(), "the guard had nothing to do")
        self.assertIn(("held/1/int8", "guard fall_back"), traffic.looks.events)

    def is_served(self, name):
        """What is counted of the others is what was seen before they went."""
        return name[0] == "held" or name[1] == str(CHANGES + 1)

    def check_counts(self, traffic):
        """The server has counted what the clients have: each answer once, and nothing else."""
        for name, identities in traffic.answers().items():
            labels = dict(zip(("model", "version", "precision"), name, strict=True))
            answered = traffic.looks.total("octet_requests_total", code="OK", **labels)
            self.assertEqual(traffic.looks.total("octet_requests_total", **labels), answered, name)
            (self.assertEqual if self.is_served(name) else self.assertLessEqual)(answered, len(identities), name)
            if name[2] == "int8":
                self.assertGreater(traffic.looks.total("octet_int8_mac_ratio", **labels), 0.99, name)
        print(sum(client.answered for client in traffic.clients), "answers of", len(traffic.answers()), "files")

    def check_shadow(self, traffic):
        """Each fp32 answer of the model has had its copy, and each comparison was of the two files of one version."""
        comparisons = {}
        for version in map(str, range(1, CHANGES + 2)):
            name = ("net", version, "fp32")

            def count(what, version=version):
                return traffic.looks.total(f"octet_shadow_{what}", model="net", version=version)

            compared, ratios = count("compared_requests_total"), count("sqnr_db_count")
            ended = self.copies(traffic, version)
            (self.assertEqual if self.is_served(name) else self.assertLessEqual)(ended, len(traffic.answers()[name]), version)
            self.assertEqual(count("failed_requests_total"), 0)
            # While copies are counted the sum may be ahead of the number, by one for each thread that compares.
            slack = 0 if self.is_served(name) else 8
            self.assertAlmostEqual(ratios, compared, delta=slack)
            ratio = 20 * math.log10(factor(*name) / (factor("net", version, "int8") - factor(*name)))
            self.assertAlmostEqual(count("sqnr_db_sum"), ratios * ratio, delta=(slack + 1e-3) * ratio)
            comparisons[version] = compared
        print("compared copies by version", comparisons)
        self.assertGreater(sum(comparisons.values()), 100)
        self.assertGreater(len([compared for compared in comparisons.values() if compared > 0]), CHANGES / 2)

    def check_captures(self, traffic):
        """What lies in the files of a version is what clients have sent to it, each request once."""
        answers, share = traffic.answers(), {}
        for version in range(1, CHANGES + 2):
            files = list(self.captures.glob(f"net/{version}/*.npz"))
            self.assertEqual(len(files), 1, files)
            with numpy.load(files[0]) as arrays:
                self.assertEqual(arrays.files, ["x"])
                captured = identities_of(arrays["x"])
            sent = set().union(*(answers["net", str(version), precision] for precision in PRECISIONS))
            self.assertEqual(len(set(captured)), len(captured), "a request was captured twice")
            self.assertEqual(set(captured) - sent, set(), "captured and not sent to this version")
            self.assertGreaterEqual(len(captured), min(100, len(sent) / 2))
            share[version] = f"{len(captured)} of {len(sent)}"
        print("captured by version", share)


if __name__ == "__main__":
    server_test_case.main()
