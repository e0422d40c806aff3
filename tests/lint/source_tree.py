"""The files of the checkout, and how a violation is told."""

import dataclasses
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIPPED_FOLDERS = {".git", "build", "node_modules", "__pycache__"}
CPP_SUFFIXES = {".cc", ".h"}


@dataclasses.dataclass(frozen=True, order=True)
class Violation:
    """What is wrong at a line (0: the whole file), printed the way editors and compilers do."""

    path: str
    line: int
    message: str

    def __str__(self):
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}: {self.message}"


def files(root=ROOT):
    """Lists the checkout's own files as sorted paths relative to root: what git knows or would add; without git, all."""
    git = ["git", "-c", "safe.directory=*", "-C", str(root)]
    listed = subprocess.run(
        [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        names = listed.stdout.decode().split("\0")
        found = {pathlib.PurePosixPath(name) for name in names if name}
    else:
        found = {
            pathlib.PurePosixPath(path.relative_to(root).as_posix())
            for path in root.rglob("*")
            if not SKIPPED_FOLDERS & set(path.relative_to(root).parts)
        }
    return sorted(path for path in found if (root / path).is_file())


def read_text(path, root=ROOT):
    """Reads a text file as a list of lines; None for a binary one."""
    content = (root / path).read_bytes()
    if b"\0" in content:
        return None
    return content.decode("utf-8", errors="replace").splitlines()


def cpp_files(root=ROOT):
    return [path for path in files(root) if path.suffix in CPP_SUFFIXES]
