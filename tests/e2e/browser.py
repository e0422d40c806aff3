"""A headless browser, and what it made of a page."""

import html.parser
import json
import subprocess
import tempfile

BROWSER = "chromium-headless-shell"
SECONDS = 100


class Document(html.parser.HTMLParser):
    """The texts of a page's tables, by caption: lists of rows; its title, headings, and what WATCH saw."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.headings, self.title, self.seen = {}, [], "", ""
        self._into, self._text, self._rows = None, "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        if tag in ("caption", "th", "td", "title", "h1", "h2", "h3") or ("id", "seen") in attributes:
            self._into, self._text = tag, ""

    def handle_data(self, data):
        self._text += data

    def handle_endtag(self, tag):
        if tag != self._into:
            return
        if tag in ("th", "td"):
            self._rows[-1].append(self._text)
        elif tag == "caption":
            self.tables[self._text] = self._rows
        elif tag == "title":
            self.title = self._text
        elif tag == "pre":
            self.seen = json.loads(self._text)
        else:
            self.headings.append(self._text)
        self._into = None


def opened(url, *words):
    """Opens a page; returns its Document and the browser's messages about it."""
    with tempfile.TemporaryDirectory() as home:
        command = [BROWSER, "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={home}"]
        command += ["--virtual-time-budget=5000", "--enable-logging=stderr", *words, "--dump-dom", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    return Document(done.stdout), [line for line in done.stderr.splitlines() if "CONSOLE" in line]
