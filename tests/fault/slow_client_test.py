#!/usr/bin/env python3
"""Ends servers whose clients are still reading their answers.

usage: slow_client_test.py OCTET
"""

import signal
import socket
import time

import server_test_case
import small_models
from server_test_case import ServerTestCase

COLUMNS = 6_000_000
BODY = COLUMNS * 4


class SlowClientTest(ServerTestCase):
    def ask(self, running):
        """Returns the socket of a client that is being answered, and what it has read: the head and its first bytes."""
        host, _, port = running.http.rpartition(":")
        client = socket.socket()
        self.addCleanup(client.close)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.settimeout(30)
        client.connect((host, int(port)))
        head = "POST /v2/models/wide/infer HTTP/1.1\r\nHost: octet\r\nInference-Header-Content-Length: 0\r\n"
        client.sendall(f"{head}Content-Length: {BODY}\r\n\r\n".encode() + bytes(BODY))
        read = b""
        while b"\r\n\r\n" not in read:
            read += client.recv(65536)
        self.assertIn(b"200 OK", read)
        return client, read

    def read_slowly(self, client, read, seconds):
        """Reads the rest of an answer so that it takes about `seconds`; returns (bytes announced, bytes that came)."""
        head, _, body = read.partition(b"\r\n\r\n")
        (announced,) = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        came, began = len(body), time.monotonic()
        while came < announced:
            try:
                piece = client.recv(200_000)
            except ConnectionError:
                break
            if not piece:
                break
            came += len(piece)
            time.sleep(max(0, began + seconds * came / announced - time.monotonic()))
        return announced, came

    def start_wide(self, grace_seconds, more=""):
        small_models.write_identity(self.models / "wide/1/fp32.onnx")
        (self.models / "wide/model.yaml").write_text("batching: {max_batch: 1}\n")
        return self.start(f"shutdown: {{grace_seconds: {grace_seconds}}}\n{more}")

    def test_an_answer_that_is_being_read_is_sent_to_its_end(self):
        running = self.start_wide(60)
        client, read = self.ask(running)
        running.process.send_signal(signal.SIGTERM)
        announced, came = self.read_slowly(client, read, 9)
        self.assertEqual(came, announced)
        self.assertGreater(came, BODY)
        self.assertEqual(running.process.wait(30), 0)
        self.assertIn("event=stopped all_answered=true", running.log.read_text())

    def test_captures_are_written_before_an_answer_is_read(self):
        small_models.write_scaling(self.models / "net/1/fp32.onnx", 2)
        (self.models / "net/model.yaml").write_text("capture: {percent: 100}\n")
        captures = self.folder / "captures"
        captures.mkdir()
        running = self.start_wide(20, f"capture: {{path: '{captures}', write_seconds: 3600}}\n")
        self.assertEqual(small_models.Caller(running.grpc).ask("net"), 2)
        # Behind the answer.
        self.wait_for_metric(running, 'octet_captured_requests_total{model="net",version="1"} 1')
        client, _ = self.ask(running)
        running.process.send_signal(signal.SIGTERM)
        self.wait_for_capture(captures)
        self.assertIsNone(running.process.poll(), "it still waits")
        client.close()
        running.process.wait(30)

    def test_an_answer_that_is_cut_off_is_not_called_answered(self):
        running = self.start_wide(1)
        client, read = self.ask(running)
        running.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        self.assertEqual(running.process.wait(30), 1)
        self.assertLess(time.monotonic() - began, 20)
        announced, came = self.read_slowly(client, read, 0)
        self.assertLess(came, announced)
        log = running.log.read_text()
        self.assertIn("event=drain_timed_out requests=1", log)
        self.assertIn("event=stopped all_answered=false", log)


if __name__ == "__main__":
    server_test_case.main()
