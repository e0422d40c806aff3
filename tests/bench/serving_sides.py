"""The processes of the serving bench: Octet, the empty gRPC service beside it, and `octet load`, which asks both."""

import concurrent.futures
import contextlib
import json
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import catalog
import onnx
import sides

sys.path.insert(0, str(catalog.ROOT / "demo"))
import server  # noqa: E402

LOAD_SECONDS = 120  # that a load may take beyond its own length
# Of HTTP/2: what a client says first; a frame of settings without any, and its acknowledgement.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, ACKNOWLEDGED = b"\0\0\0\4\0\0\0\0\0", b"\0\0\0\4\1\0\0\0\0"


class LoadError(Exception):
    """What `octet load` said before it failed, or which of its requests did."""


def write_identity(path, elements):
    """Writes a model of one Identity: FP32 [N, elements]."""
    shape = ["N", elements]
    make = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["input"], ["output"])],
        "identity",
        [make("input", onnx.TensorProto.FLOAT, shape)],
        [make("output", onnx.TensorProto.FLOAT, shape)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


def add_model(repository, name, files, map_file=None):
    """Puts {precision: file} into a model repository."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    for precision, file in files.items():
        shutil.copyfile(file, version / f"{precision}.onnx")
    if map_file:
        text = pathlib.Path(map_file).read_text()
        (version.parent / "model.yaml").write_text(re.sub(r"(?m)^name:.*$", f"name: {name}", text))


class Side:
    """A server that is measured: where it listens for gRPC (and for HTTP), what it uses."""

    def __init__(self, name, target, pid, http=None):
        self.name, self.target, self.pid, self.http = name, target, pid, http

    def cpu_seconds(self):
        """Returns what all its threads have used: the clock that clock_getcpuclockid(3) names."""
        return time.clock_gettime((~self.pid << 3) | 2)

    def resident_bytes(self):
        """Returns its resident memory, the pages of its libraries that are in use too, as the figures of the other server are."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(re.search(r"VmRSS:\s*(\d+)", status)[1])


@contextlib.contextmanager
def octet(program, repository, folder, configuration=""):
    """Serves a repository."""
    folder.mkdir(parents=True, exist_ok=True)
    with server.Server(program, repository, folder, configuration) as running:
        yield Side("octet", running.grpc, running.process.pid, running.http)
        running.stop()


@contextlib.contextmanager
def empty(program, models):
    """Runs the empty service. models: {name: (datatype, dims, bytes of an answer[, microseconds of work])}."""
    words = [
        ":".join(map(str, (name, datatype, "x".join(map(str, dims)), *numbers)))
        for name, (datatype, dims, *numbers) in models.items()
    ]
    with subprocess.Popen([program, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = process.stdout.readline().strip().removeprefix("port=")
            if not port:
                raise LoadError(f"{program} does not listen")
            yield Side("empty", f"127.0.0.1:{port}", process.pid)
        finally:
            process.stdin.close()
            process.wait(sides.SECONDS)


# What wrk sends and says. Its own words are for people; of latencies it has microseconds.
SCRIPT = """\
local head = '{"inputs":[{"name":"input","datatype":"FP32","shape":[1,%(elements)d],"parameters":{"binary_data_size":%(bytes)d}}],' ..
  '"outputs":[{"name":"output","parameters":{"binary_data":true}}]}'
wrk.method = "POST"
wrk.body = head .. string.rep("\\0\\0\\128\\63", %(elements)d)
wrk.headers["Inference-Header-Content-Length"] = tostring(#head)
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('\\n{"requests": %%d, "seconds": %%.6f, "p50_us": %%d, "errors": %%d}\\n', summary.requests,
    summary.duration / 1e6, latency:percentile(50), errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


def ask_http(side, model, elements, connections, seconds):
    """Asks an identity model of `elements` floats over HTTP, in binary, with wrk: whole seconds, one request under way on each
    connection. Returns as Loader.ask does: "requests", "throughput", "p50_us", "server_cpu_seconds"."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % {"elements": elements, "bytes": 4 * elements})
        script.flush()
        words = ["--threads", 1, "--connections", connections, "--duration", seconds, "--script", script.name]
        before = side.cpu_seconds()
        done = subprocess.run(
            list(map(str, ["wrk", *words, f"http://{side.http}/v2/models/{model}/infer"])),
            capture_output=True,
            text=True,
            timeout=seconds + LOAD_SECONDS,
            check=False,
        )
        used = side.cpu_seconds() - before
    if done.returncode != 0:
        raise LoadError(done.stderr.strip() or f"wrk ended with {done.returncode}")
    run = json.loads(done.stdout.splitlines()[-1])
    if run["errors"] or not run["requests"]:
        raise LoadError(f"{side.name}, {model} over HTTP: {run['errors']} errors, {run['requests']} requests")
    return {**run, "throughput": run["requests"] / run["seconds"], "server_cpu_seconds": used}


class Loader:
    """Asks sides with `octet load`."""

    def __init__(self, program, seconds):
        """seconds: the length of a turn."""
        self.program, self.seconds = program, seconds

    def ask(self, side, model, *words, seconds=None):
        """Returns one run's JSON, with what the side used of processor time in "server_cpu_seconds". LoadError when a
        request failed."""
        length = seconds or self.seconds
        command = [self.program, "load", "--target", side.target, "--model", model, "--seconds", length, *words, "--json"]
        before = side.cpu_seconds()
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=length + LOAD_SECONDS, check=False
        )
        used = side.cpu_seconds() - before
        if done.returncode != 0:
            raise LoadError(done.stderr.strip() or f"octet load ended with {done.returncode}")
        (run,) = json.loads(done.stdout)
        if run["errors"] or not run["requests"]:
            raise LoadError(f"{side.name}, {model}: errors {run['errors_by_code']} of {run['requests']} requests")
        return {**run, "server_cpu_seconds": used}

    def take_turns(self, rounds, asks, seconds=None):
        """Runs every ask, (side, model, *words), once in each round, every second round backwards, and returns the runs of
        each: so noise of the machine meets all alike."""
        runs = [[] for _ in asks]
        for number in range(rounds):
            order = range(len(asks)) if number % 2 == 0 else reversed(range(len(asks)))
            for index in order:
                runs[index].append(self.ask(*asks[index], seconds=seconds))
        return runs


class IdleConnections:
    """HTTP/2 connections that have greeted a server and ask it nothing."""

    def __init__(self, target, count):
        host, _, port = target.rpartition(":")
        self._sockets = []
        for _ in range(count):
            connection = socket.create_connection((host, int(port)), timeout=10)
            self._sockets.append(connection)
            connection.sendall(PREFACE + SETTINGS + ACKNOWLEDGED)

    def open(self):
        """Returns how many the server has greeted and not closed."""
        alive = 0
        for connection in self._sockets:
            connection.settimeout(5)
            try:
                alive += bool(connection.recv(1, socket.MSG_PEEK))
            except OSError:
                pass
        return alive

    def close(self):
        for connection in self._sockets:
            connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Compute:
    """What a core needs for one row of a model while every core computes the same, without a server, in the better of several
    batch sizes."""

    def __init__(self, program, files, cores):
        """files: {batch: (file, arrays)}."""
        self._running = {batch: [] for batch in files}
        self._stack = contextlib.ExitStack()
        try:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory())
            for batch, (file, arrays) in files.items():
                for _ in range(cores):
                    side = sides.octet(program, file, arrays, 1, folder)
                    self._running[batch].append(self._stack.enter_context(side))
        except BaseException:
            self._stack.close()
            raise

    def row_seconds(self, seconds):
        """Measures every batch size for that long."""
        return min(self._round(batch, seconds) for batch in self._running)

    def _round(self, batch, seconds):
        cores = self._running[batch]
        with concurrent.futures.ThreadPoolExecutor(len(cores)) as pool:
            list(pool.map(lambda side: side.round(seconds), cores))  # raises what a side raised
        return statistics.fmean(side.rounds[-1]["latency_ms"]["p50"] for side in cores) / 1e3 / batch

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()
