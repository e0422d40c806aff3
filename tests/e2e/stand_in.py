"""An HTTP address that is not the server's own."""

import http.server
import threading
import urllib.request


class StandIn(http.server.ThreadingHTTPServer):
    """Stands in front of a server that comes and goes, as a context.

    target: HOST:PORT of the server whose answers it gives; None: it hangs up; a number: it answers every request with this
        status. May be changed at any time.
    before: is called with each path before the server is asked.
    change: makes of a path and the server's body what the client gets.
    address: HOST:PORT of its own.
    """

    def __init__(self, target, before=lambda path: None, change=lambda path, body: body):
        self.target, self.before, self.change = target, before, change
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.address = f"127.0.0.1:{self.server_port}"

    def __exit__(self, *error):
        self.shutdown()
        super().__exit__(*error)


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
        target = self.server.target
        if target is None:
            return
        if isinstance(target, int):
            self.send_error(target)
            return
        self.server.before(self.path)
        with urllib.request.urlopen(f"http://{target}{self.path}", timeout=20) as answer:
            body, kind = self.server.change(self.path, answer.read()), answer.headers["Content-Type"]
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):  # noqa: N802
        assert isinstance(self.server.target, int), "nothing is passed on but GET"
        self.do_GET()

    def log_message(self, *words):
        pass
