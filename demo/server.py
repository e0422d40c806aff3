"""Starts and stops `octet serve` on loopback ports."""

import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

SERVING = re.compile(r"event=serving grpc=(\S+) http=(\S+) metrics=(\S+)")
START_SECONDS = 60
STOP_SECONDS = 60

CONFIGURATION = """\
# Loopback ports (0: any free one); the rest are defaults.
listen: {{{listen}}}
"""
LISTEN = "address: 127.0.0.1, grpc_port: {grpc}, http_port: {http}, metrics_port: {metrics}"
FREE_PORTS = {"grpc": 0, "http": 0, "metrics": 0}
DEFAULT_PORTS = {"grpc": 8001, "http": 8000, "metrics": 8002}


class ServerError(Exception):
    """What went wrong with the server, for its user to read."""


def find_octet():
    """Returns the path of the program. ServerError when it is not built or not on the PATH."""
    path = shutil.which("octet")
    if path is None:
        raise ServerError("octet is not on the PATH: start this through ./dev")
    return path


def default_ports():
    """Returns Octet's own ports, as the documentation has them, or FREE_PORTS when another program has one of them."""
    for port in DEFAULT_PORTS.values():
        with socket.socket() as probe:
            # As a server does: the last one's connections may still linger.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return FREE_PORTS
    return DEFAULT_PORTS


class Server:
    """A server over a model repository; as a context manager it does not outlive its block.

    grpc, http and metrics are the addresses, HOST:PORT; log is the file with everything that the server said.
    """

    def __init__(self, octet, repository, folder, configuration="", listen="", ports=FREE_PORTS):
        """Starts it and waits until it serves; `listen`: further keys of that section. ServerError, with its last words, when it does not."""
        folder = pathlib.Path(folder)
        self.log = folder / "server.log"
        section = ", ".join([LISTEN.format(**ports), *([listen] if listen else [])])
        (folder / "octet.yaml").write_text(CONFIGURATION.format(listen=section) + configuration)
        command = [octet, "serve", "--repository", repository, "--config", folder / "octet.yaml"]
        with self.log.open("wb") as log:
            # A group of its own: Ctrl-C is for its starter, who then stops it.
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0)
        try:
            self.grpc, self.http, self.metrics = self._wait_for_ports()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _wait_for_ports(self):
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            status = self.process.poll()
            serving = SERVING.search(self.log.read_text())
            if status is not None:
                raise ServerError(f"octet serve ended with {status} before it served:\n{self.last_words()}")
            if serving:
                return serving.groups()
            time.sleep(0.02)
        raise ServerError(f"octet serve does not serve after {START_SECONDS} s:\n{self.last_words()}")

    def last_words(self):
        """Returns the end of the server's log."""
        return "\n".join(self.log.read_text().splitlines()[-10:])

    def metrics_page(self):
        """Returns what Prometheus reads."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as page:
            return page.read().decode()

    def stop(self):
        """Asks it to finish what it accepted and to end (SIGTERM). ServerError unless it ends with 0."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise ServerError(f"octet serve does not end {STOP_SECONDS} s after SIGTERM:\n{self.last_words()}") from None
        if status != 0:
            raise ServerError(f"octet serve ended with {status} after SIGTERM:\n{self.last_words()}")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
