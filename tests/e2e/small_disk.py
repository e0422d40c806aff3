"""Runs `octet` where there is hardly room for a file."""

import subprocess
import tempfile

import octet_process


def can_mount():
    """Whether this process may mount a file system for its children."""
    probe = ["unshare", "-m", "mount", "-t", "tmpfs", "none", tempfile.gettempdir()]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def on_small_disk(folder, *words):
    """Returns the finished process, for which `folder` was a disk of 64 KB; its output ends with what was left there."""
    script = 'mount -t tmpfs -o size=64k none "$0" && "$@"; code=$?; ls -A "$0"; exit $code'
    command = ["unshare", "-m", "sh", "-c", script, folder, octet_process.executable(), *map(str, words)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=240, check=False)
