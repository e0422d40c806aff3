"""Drives `octet rollout` under traffic of which every answer is held against the expected one."""

import json
import subprocess
import threading
import time
import unittest
import urllib.request

QUICK = {
    "--window-seconds": "1",
    "--windows": "1",
    "--min-samples": "20",
    "--hold-seconds": "1",
    "--ramp": "20,60,100",
    "--shadow-percent": "100",
    "--min-shadow-requests": "60",
    "--patience-seconds": "60",
    "--min-agreement": "90",
}


def restart(server):
    """Starts a server that was killed again, on the ports that it had."""
    server.process.wait()
    configuration = server.log.parent / "octet.yaml"
    text = configuration.read_text()
    for name in ("grpc", "http", "metrics"):
        text = text.replace(f"{name}_port: 0", f"{name}_port: {getattr(server, name).rpartition(':')[2]}")
    configuration.write_text(text)
    with server.log.open("ab") as log:
        server.process = subprocess.Popen(server.process.args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0)
    until = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"http://{server.http}/v2/health/ready", timeout=10).close()
            return
        except OSError:
            if time.monotonic() > until or server.process.poll() is not None:
                raise AssertionError(server.last_words()) from None
            time.sleep(0.1)


class Traffic:
    """Asks without a pause; remembers each image's answer by the precision that gave it, and what failed."""

    def __init__(self, served):
        self._served = served
        self.answers = []
        self.failures = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        number = 0
        while not self._stop.is_set():
            try:
                self.answers.append((number % len(self._served.images), *self._served.ask(number)))
            except Exception as error:  # noqa: BLE001  # every kind of failure is one too many
                self.failures.append(str(error))
            number += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, error, trace):
        self._stop.set()
        self._thread.join()

    def precisions(self):
        return {precision for _, _, precision in self.answers}


class RolloutCase(unittest.TestCase):
    """octet: the executable; fp32: {number of an image: its answer}. Both are the subclass's to set."""

    def command(self, served, *words):
        """Each option once: the words' over the quick ones."""
        options = {"--server": served.server.http, "--repository": served.models, **QUICK}
        flags = [word for word in words if word == "--abort"]
        pairs = [word for word in words if word != "--abort"]
        options.update(zip(pairs[::2], pairs[1::2], strict=True))
        return [self.octet, "rollout", served.model, *flags, *(word for pair in options.items() for word in pair)]

    def rollout(self, served, *words):
        """Returns exit code, output and errors."""
        done = subprocess.run(self.command(served, *words), capture_output=True, text=True, timeout=120, check=False)
        print(done.stdout, done.stderr)
        return done.returncode, done.stdout, done.stderr

    def wait_for_line(self, process, start):
        """Reads a rollout's output up to a line that begins so."""
        while not (line := process.stdout.readline()).startswith(start):
            self.assertTrue(line, f"it ended before \"{start}\"")

    def wait_for_event(self, served, process, event):
        """Waits until that is the last one of the journal, which is written behind the line that says so."""
        while self.events(served)[-1] != event:
            self.assertIsNone(process.poll(), f"it ended before \"{event}\"")
            time.sleep(0.005)

    def events(self, served):
        lines = (served.models / served.model / ".rollout/journal.jsonl").read_text().splitlines()
        return [json.loads(line)["event"] for line in lines]

    def assert_every_answer_is_right(self, traffic, served, expected=None):
        """Each is that of the precision that it names, to the bit where one runs alone; `expected`: int8's, where none is served."""
        self.assertEqual(traffic.failures, [])
        wrong = [number for number, answer, precision in traffic.answers if precision == "fp32" and answer != self.fp32[number]]
        self.assertEqual(wrong, [])
        int8 = {}
        for number, answer, precision in traffic.answers:
            if precision == "int8":
                int8.setdefault(number, set()).add(answer)
        request = None
        for number, answers in int8.items():
            if expected is not None:
                self.assertEqual(answers, {expected[number]})
                continue
            request = served.request(number)
            request.parameters["precision"].string_param = "int8"
            self.assertEqual(answers, {served.stub.ModelInfer(request, timeout=20).raw_output_contents[0]})
