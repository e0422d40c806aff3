#!/usr/bin/env python3
"""Tests the Dockerfile where no container engine runs.

Without arguments: assembles the image's root from the binary that is built, checks that it is small enough and holds no
more than it should, and that the image's own command, as the image's user, opens the ports that the Dockerfile exposes
and ends after SIGTERM. Some seconds.

With --play-back: plays every step of the Dockerfile back, each stage in a fresh root: FROM debian with debootstrap, RUN
in a chroot, COPY with .dockerignore. Then the same checks. Some minutes. Needs root; `./dev test --docker` brings what
else it needs.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / "build/release/octet"
MAX_IMAGE_BYTES = 150_000_000
USER = "65532:65532"
SKIPPED = 77
IGNORED_INSTRUCTIONS = {"VOLUME", "STOPSIGNAL", "LABEL"}
# What `docker run` looks at; these touch no file.
SETTINGS = {"ENV", "USER", "EXPOSE", "ENTRYPOINT", "CMD"}
START_SECONDS = 30
STOP_SECONDS = 40
UNWANTED = ["bin/sh", "usr/bin/dpkg", "usr/bin/apt-get", "usr/bin/perl", "src"]


class Failure(Exception):
    """What is wrong with the image, for whoever reads the test's output."""


@dataclasses.dataclass
class Stage:
    """One stage of the Dockerfile and, while it is played back, its root and settings."""

    base: str
    name: str
    steps: list
    root: pathlib.Path = None
    folder: str = "/"
    environment: dict = dataclasses.field(default_factory=dict)
    user: str = "0:0"
    ports: set = dataclasses.field(default_factory=set)
    entrypoint: list = dataclasses.field(default_factory=list)
    command: list = dataclasses.field(default_factory=list)


def parse(text):
    """Returns the stages of a Dockerfile, each with its steps as (instruction, rest of the line)."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    stages = []
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base.strip(), name.strip(), []))
        else:
            stages[-1].steps.append((instruction, rest.strip()))
    return stages


def image_bytes(root):
    """Sums the sizes of the files of an image, hard links once, as an image layer holds them."""
    seen, total = set(), 0
    for path in root.rglob("*"):
        status = path.lstat()
        if not path.is_dir() and status.st_ino not in seen:
            seen.add(status.st_ino)
            total += status.st_size
    return total


def print_sizes(root):
    files = sorted(((path.lstat().st_size, path) for path in root.rglob("*") if path.is_file()), reverse=True)
    for size, path in files[:8]:
        print(f"  {size / 1e6:7.1f} MB  /{path.relative_to(root)}")
    print(f"  {image_bytes(root) / 1e6:7.1f} MB  the image, at most {MAX_IMAGE_BYTES / 1e6:.0f}")


def check_content(root):
    print_sizes(root)
    if image_bytes(root) > MAX_IMAGE_BYTES:
        raise Failure(f"the image has {image_bytes(root)} bytes, at most {MAX_IMAGE_BYTES}")
    unwanted = [path for path in UNWANTED if (root / path).exists()]
    if unwanted:
        raise Failure(f"the image holds what it should not: {', '.join(unwanted)}")
    if not any((root / "usr/share/doc").glob("libdnnl*/copyright")):
        raise Failure("the licences of the libraries are missing in /usr/share/doc")


def check_temporary_folders(root):
    """What octet spools, and what libraries keep aside, goes to these whoever the user is."""
    for name in ["tmp", "var/tmp"]:
        folder = root / name
        if not folder.is_dir() or folder.stat().st_mode & 0o7777 != 0o1777:
            raise Failure(f"/{name} of the image is no folder that everybody may write to")


def in_container(root, command, environment, user="0:0", binds=()):
    """Returns the command line that runs `command` in root, with mounts that end with it. binds: (host, inside)."""
    script = ["set -e"]
    for host, inside in [("/proc", "proc"), ("/dev", "dev"), *binds]:
        target = shlex.quote(str(root / inside))
        script.append(f"mkdir -p {target}; mount --rbind {shlex.quote(str(host))} {target}")
    variables = " ".join(shlex.quote(f"{name}={value}") for name, value in environment.items())
    chroot = [shutil.which("chroot"), f"--userspec={user}", str(root), *command]
    script.append(f"exec env -i {variables} {shlex.join(chroot)}")
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(script)]


def check_version(image):
    """Runs `octet --version` in the image as the image's user."""
    command = in_container(image.root, ["/usr/bin/octet", "--version"], image.environment, user=image.user)
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode or not result.stdout.strip():
        raise Failure(f"octet --version does not run in the image: {result.stdout}{result.stderr}")
    print(f"  in the image: {result.stdout.splitlines()[0]}")


def listening_ports(process):
    """Returns the TCP ports that listen in the network of a process; none while that is still this test's own."""
    if os.readlink(f"/proc/{process.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        return set()
    lines = []
    for table in ["tcp", "tcp6"]:
        lines += pathlib.Path(f"/proc/{process.pid}/net/{table}").read_text().splitlines()[1:]
    sockets = [line.split() for line in lines]
    return {int(local.rpartition(":")[2], 16) for _, local, _, state, *_ in sockets if state == "0A"}


def wait_for_ports(process, ports):
    until = time.monotonic() + START_SECONDS
    while not ports <= listening_ports(process):
        if process.poll() is not None:
            raise Failure(f"the image's command ended with {process.returncode}")
        if time.monotonic() > until:
            raise Failure(f"the image's command listens on {listening_ports(process)}, the Dockerfile exposes {ports}")
        time.sleep(0.05)


def check_command(image):
    """Starts what `docker run` would start, in a network of its own, and stops it the way `docker stop` does."""
    command = in_container(image.root, image.entrypoint + image.command, image.environment, user=image.user)
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(["unshare", "--net", *command], stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_for_ports(process, image.ports)
            process.send_signal(signal.SIGTERM)
            if process.wait(timeout=STOP_SECONDS):
                raise Failure(f"the image's command ended with {process.returncode} after SIGTERM")
        except (Failure, subprocess.TimeoutExpired) as failure:
            output.seek(0)
            raise Failure(f"{failure}; it printed: {output.read().decode()[-3000:]}") from None
        finally:
            process.kill()
            process.wait()
    print(f"  in the image: listens on {sorted(image.ports)}, and ends after SIGTERM")


def check_image(image):
    check_content(image.root)
    check_temporary_folders(image.root)
    if image.user != USER:
        raise Failure(f"the image runs as {image.user}, expected {USER}")
    if can_enter_roots():
        check_version(image)
        check_command(image)


def execute(command):
    """Runs a step of the play-back; its output is shown when it fails."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise Failure(f"failed with {result.returncode}:\n{(result.stdout + result.stderr)[-3000:]}")


def build_context():
    """Lists what is in the build context. Requires a .dockerignore that shuts out everything, then lets names in."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    if lines[0] != "*":
        raise Failure(".dockerignore is expected to begin with *")
    names = [line[1:] for line in lines if line[0] == "!"]
    return [ROOT / name for name in names if (ROOT / name).exists()]


def copy(source, target):
    if source.is_dir():
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=ignore)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


class PlayBack:
    """Plays a Dockerfile back below a folder. One do_ method per instruction."""

    def __init__(self, folder):
        self.folder = folder
        self.stages = []
        # The compiler's cache of ./dev, which saves minutes and changes nothing else.
        self.ccache = pathlib.Path(os.environ.get("CCACHE_DIR", folder / "ccache"))
        self.ccache.mkdir(parents=True, exist_ok=True)

    def play(self, stages):
        """Plays every stage in order and returns the last, which is the image."""
        for stage in stages:
            stage.root = self.folder / f"stage{len(self.stages)}"
            stage.root.mkdir()
            for instruction, rest in [("FROM", stage.base), *stage.steps]:
                self._step(stage, instruction, rest)
            self.stages.append(stage)
        return self.stages[-1]

    def settings(self, stage):
        """Plays what leaves the files alone."""
        for instruction, rest in stage.steps:
            if instruction in SETTINGS:
                self._step(stage, instruction, rest)

    def _step(self, stage, instruction, rest):
        started = time.monotonic()
        text = f"{instruction} {rest}"
        print(f"  {text if len(text) <= 90 else text[:87] + '...'}", end="", flush=True)
        if instruction not in IGNORED_INSTRUCTIONS:
            action = getattr(self, f"do_{instruction.lower()}", None)
            if not action:
                raise Failure(f"{instruction} is not known to this test")
            action(stage, rest)
        print(f" ({time.monotonic() - started:.1f} s)", flush=True)

    def do_from(self, stage, base):
        if base == "scratch":
            return
        if base != "debian:trixie-slim":
            raise Failure(f"FROM {base} is not known to this test")
        stage.environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        execute(["debootstrap", "--variant=minbase", "trixie", str(stage.root)])

    def do_workdir(self, stage, rest):
        stage.folder = rest
        (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def do_env(self, stage, rest):
        stage.environment.update(variable.split("=", 1) for variable in shlex.split(rest))

    def do_expose(self, stage, rest):
        stage.ports.update(map(int, rest.split()))

    def do_user(self, stage, rest):
        stage.user = rest

    def do_entrypoint(self, stage, rest):
        stage.entrypoint = json.loads(rest)

    def do_cmd(self, stage, rest):
        stage.command = json.loads(rest)

    def do_copy(self, stage, rest):
        *sources, target = shlex.split(rest)
        place = stage.root / os.path.join(stage.folder, target).lstrip("/")
        if sources[0].startswith("--from="):
            name = sources.pop(0).removeprefix("--from=")
            origin = next(other.root for other in self.stages if other.name == name)
            for source in sources:
                copy(origin / source.strip("/"), place)
            return
        allowed = build_context()
        for source in sources:
            if source == ".":
                for path in allowed:
                    copy(path, place / path.name)
            elif any((ROOT / source).is_relative_to(path) for path in allowed):
                copy(ROOT / source, place)
            else:
                raise Failure(f"COPY {source}: shut out by .dockerignore")

    def do_run(self, stage, rest):
        if pathlib.Path("/etc/resolv.conf").exists():
            shutil.copy("/etc/resolv.conf", stage.root / "etc/resolv.conf")
        environment = {
            **stage.environment,
            "HOME": "/tmp",
            "DEBIAN_FRONTEND": "noninteractive",
            "CCACHE_DIR": "/ccache",
            "CCACHE_BASEDIR": stage.folder,
            "CCACHE_NOHASHDIR": "1",
            "CCACHE_SLOPPINESS": "pch_defines,time_macros,include_file_mtime,include_file_ctime",
            **{name: value for name, value in os.environ.items() if name in {"http_proxy", "https_proxy", "no_proxy"}},
        }
        command = ["/bin/sh", "-c", f"cd {shlex.quote(stage.folder)} && {rest}"]
        execute(in_container(stage.root, command, environment, user=stage.user, binds=[(self.ccache, "ccache")]))


def can_enter_roots():
    probe = ["unshare", "--mount", "--propagation", "private", "true"]
    return os.geteuid() == 0 and subprocess.run(probe, capture_output=True, check=False).returncode == 0


def test_assembly(stages, folder):
    """Assembles the image's root the way the Dockerfile's last stages do, from the binary of the checkout."""
    if not BINARY.exists():
        print(f"skipped: {BINARY.relative_to(ROOT)} is not built")
        return SKIPPED
    if stages[-1].base != "scratch" or "deploy/docker/assemble.sh build/release/octet /image" not in stages[0].steps[-1][1]:
        raise Failure("the Dockerfile does not assemble its image with deploy/docker/assemble.sh any more")
    image = stages[-1]
    image.root = folder / "image"
    PlayBack(folder).settings(image)
    execute([str(ROOT / "deploy/docker/assemble.sh"), str(BINARY), str(image.root)])
    check_image(image)
    return 0


def test_play_back(stages, folder):
    if not can_enter_roots():
        raise Failure("--play-back needs root and mount namespaces")
    check_image(PlayBack(folder).play(stages))
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--play-back", action="store_true", help="play every step back in fresh roots")
    arguments = parser.parse_args()
    stages = parse((ROOT / "Dockerfile").read_text())
    test = test_play_back if arguments.play_back else test_assembly
    with tempfile.TemporaryDirectory(prefix="octet-image-") as folder:
        os.chmod(folder, 0o755)
        try:
            return test(stages, pathlib.Path(folder))
        except Failure as failure:
            print(f"\nDockerfile: {failure}")
            return 1


if __name__ == "__main__":
    sys.exit(main())
