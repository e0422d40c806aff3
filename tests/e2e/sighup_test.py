#!/usr/bin/env python3
"""SIGHUP under a running server, which looks at its models and its certificate then, and never otherwise for models; and terminals that go.

usage: sighup_test.py OCTET
"""

import json
import os
import pathlib
import pty
import re
import shutil
import signal
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

import octet_process
import onnx
from certificates import Authority, listen
from octet_process import executable
from onnx import TensorProto, helper
from served_client import ServedClient

SECONDS = 60
SERVING = re.compile(rb"event=serving grpc=\S+ http=(\S+) metrics=\S+")


def write_scaling(path, factor=2.0):
    """Writes y = factor * x, x float [?, 1], over what was there from one moment to the next."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in "xy"]
    constant = helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "factor"], ["y"])], "scale", ends[:1], ends[1:], [constant])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def ask(address, model):
    """Returns the model's factor, or the status of the error."""
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}
    request = urllib.request.Request(f"http://{address}/v2/models/{model}/infer", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)["outputs"][0]["data"][0]
    except urllib.error.HTTPError as error:
        return f"status {error.code}"


class SighupCase(unittest.TestCase):
    def wait_for(self, condition, what):
        until = time.monotonic() + SECONDS
        while not condition():
            self.assertLess(time.monotonic(), until, what)
            time.sleep(0.02)


class ReloadTest(SighupCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.authority = Authority(self.folder / "authority")
        self.pair = self.authority.issue("server")
        self.served = ServedClient(executable(), dict.fromkeys(("net", "old"), write_scaling), listen=listen(self.pair))
        self.addCleanup(self.served.close)
        self.models = self.served.folder / "models"

    def count(self, event):
        return self.served.server.log.read_text().count(f"event={event} ")

    def hang_up(self):
        """Sends the signal and waits until the server has done what it asks for."""
        before = self.count("reloaded")
        self.served.server.process.send_signal(signal.SIGHUP)
        self.wait_for(lambda: self.count("reloaded") > before, "nothing is reloaded")

    def renew(self, name, **more):
        """Puts another certificate in the place of the server's; returns it."""
        fresh = self.authority.issue(name, **more)
        shutil.copy(fresh.certificate, self.pair.certificate)
        shutil.copy(fresh.key, self.pair.key)
        return fresh

    def test_models_and_the_certificate_are_looked_at_and_no_request_is_lost(self):
        address = self.served.server.http
        answers, done = [], threading.Event()

        def go_on():
            while not done.is_set():
                answers.append(ask(address, "net"))

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            self.wait_for(lambda: answers, "no answer")
            write_scaling(self.models / "net/1/fp32.onnx", 3.0)
            write_scaling(self.models / "new/1/fp32.onnx", 4.0)
            shutil.rmtree(self.models / "old")
            # What is not asked for is not done: longer than two looks of the shortest interval.
            time.sleep(2.5)
            self.assertEqual([ask(address, name) for name in ("net", "new", "old")], [2, "status 404", 2])
            fresh = self.renew("renewed", days=7)
            self.hang_up()
            self.assertEqual([ask(address, name) for name in ("net", "new", "old")], [3, 4, "status 404"])
            self.assertIn(f"octet_tls_certificate_not_after_seconds {fresh.not_after()}", self.served.server.metrics_page())
        finally:
            done.set()
            thread.join()
        self.assertEqual(set(answers), {2, 3})
        log = self.served.server.log.read_text()
        self.assertRegex(log, r"event=reloading signal=SIGHUP\n(?s:.*)event=reloaded repository=\S+ tls=true\n")

    def test_what_failed_is_tried_and_told_again(self):
        wrong = shutil.copy(self.authority.key, self.folder / "wrong.key")
        os.replace(wrong, self.pair.key)  # At once: nobody reads half of it.
        self.wait_for(lambda: self.count("tls_refused") == 1, "the wrong key is not logged")
        (self.models / "net/1/fp32.onnx").write_bytes(b"no model")
        for times in (2, 3):
            self.hang_up()
            self.assertEqual(self.count("tls_refused"), times)
            self.assertEqual(self.count("variant_refused"), times - 1)
            self.assertEqual(ask(self.served.server.http, "net"), 2, "what there is stays")

    def test_a_folder_that_is_away_is_no_reload(self):
        away = self.models.rename(self.models.with_name("away"))
        self.served.server.process.send_signal(signal.SIGHUP)
        self.wait_for(lambda: self.count("reload_failed"), "nobody says so")
        self.assertEqual(self.count("reloaded"), 0)
        self.assertEqual(ask(self.served.server.http, "net"), 2, "what there is stays")
        self.assertRegex(self.served.server.log.read_text(), r'level=error event=reload_failed repository=\S+ tls=true error="cannot read folder')
        away.rename(self.models)
        self.hang_up()

    def test_many_signals_and_an_end(self):
        for _ in range(200):
            self.served.server.process.send_signal(signal.SIGHUP)
        self.wait_for(lambda: self.count("reloaded") > 0, "nothing is reloaded")
        self.assertEqual(ask(self.served.server.http, "net"), 2)
        # close() expects it to end well.


class StoppingTest(SighupCase):
    def test_a_signal_while_the_server_stops_is_refused(self):
        served = ServedClient(executable(), {"net": write_scaling}, configuration="shutdown: {delay_seconds: 5}\n")
        self.addCleanup(served.close)
        process, log = served.server.process, served.server.log
        for number, event in ((signal.SIGTERM, "stopping"), (signal.SIGHUP, "reload_refused")):
            process.send_signal(number)
            self.wait_for(lambda event=event: f"event={event} " in log.read_text(), f"no event {event}")
        self.assertEqual(process.wait(SECONDS), 0)
        self.assertNotIn("event=reloading", log.read_text())


class TerminalTest(SighupCase):
    def test_a_server_whose_terminal_is_closed_goes_on_until_it_is_told_to_end(self):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        write_scaling(folder / "net/1/fp32.onnx")
        words = ["serve", "--repository", folder, "--address", "127.0.0.1"]
        for port in ("--grpc-port", "--http-port", "--metrics-port"):
            words += [port, 0]
        pid, terminal = pty.fork()
        if pid == 0:
            try:
                os.execv(executable(), ["octet", *map(str, words)])
            finally:
                os._exit(127)
        try:
            said = b""
            while not SERVING.search(said):
                said += os.read(terminal, 4096)
            address = SERVING.search(said)[1].decode()
            write_scaling(folder / "net/1/fp32.onnx", 3.0)
            self.assertEqual(ask(address, "net"), 2)
            os.close(terminal)
            # It has heard of that, and has nowhere to say so.
            self.wait_for(lambda: ask(address, "net") == 3, "the models are not looked at")
            os.kill(pid, signal.SIGTERM)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            _, status = os.waitpid(pid, 0)
        self.assertEqual(os.waitstatus_to_exitcode(status), 0)


if __name__ == "__main__":
    octet_process.main()
