"""Says on stderr what is being done and how far it is."""

import sys
import time

WIDTH = 30


class Progress:
    """One step of known length: a bar on a terminal; elsewhere one line when it is done."""

    def __init__(self, label, total=1):
        self.label, self.total, self.done = label, total, 0
        self.started, self.drawn = time.monotonic(), 0.0
        self.terminal = sys.stderr.isatty()

    def add(self, count=1):
        self.done += count
        now = time.monotonic()
        if self.terminal and now - self.drawn > 0.1:
            self.drawn = now
            self._draw()

    def _draw(self):
        filled = WIDTH * self.done // self.total
        bar = "#" * filled + " " * (WIDTH - filled)
        print(f"\r{self.label:<34} [{bar}] {self.done}/{self.total} ", end="", file=sys.stderr, flush=True)

    def __enter__(self):
        if self.terminal:
            self._draw()
        return self

    def __exit__(self, kind, error, trace):
        clear = "\r\033[K" if self.terminal else ""
        end = "failed" if kind else f"{time.monotonic() - self.started:.1f} s"
        print(f"{clear}{self.label:<34} {end}", file=sys.stderr, flush=True)
