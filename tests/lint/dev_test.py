#!/usr/bin/env python3
"""Tests ./dev and the toolbox: the command line, what a command in the toolbox sees and returns, and that a broken
toolbox is noticed. No test makes a real toolbox: the making is replaced, or a bare root is entered."""

import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEV = str(ROOT / "dev")
TIMEOUT = 60  # seconds for one call of ./dev, so that one that hangs is named


def can_make_namespaces():
    probe = ["unshare", "--mount", "--propagation", "private", "true"]
    return os.geteuid() == 0 and subprocess.run(probe, capture_output=True, check=False).returncode == 0


def dev(*arguments, **options):
    return subprocess.run([DEV, *arguments], capture_output=True, text=True, check=False, timeout=TIMEOUT, **options)


def platform_at_hand():
    """Whether ./dev can run a command here without making a toolbox or installing packages first."""
    return subprocess.run(["bash", "-c", f'source "{DEV}"; platform_at_hand'], check=False, timeout=TIMEOUT).returncode == 0


class TemporaryFolderTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name).resolve()
        self.cache = self.folder / "cache"
        self.cache.mkdir()

    def bash(self, script):
        """Runs bash lines with the functions of ./dev loaded and the cache in the temporary folder."""
        environment = {**os.environ, "OCTET_CACHE": str(self.cache)}
        environment.pop("OCTET_TOOLBOX", None)
        command = ["bash", "-c", f'source "{DEV}"; {script}']
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT)


class CommandLineTest(unittest.TestCase):
    def test_help_lists_every_verb(self):
        for arguments in [["--help"], ["-h"], ["help"], []]:
            result = dev(*arguments)
            self.assertEqual(result.returncode, 0)
            for verb in ["demo", "test", "build", "bench", "run --", "shell", "lint", "format", "train-demo"]:
                self.assertIn(f"\n  {verb} ", result.stdout)

    def test_unknown_verb(self):
        result = dev("tset")
        self.assertEqual(result.returncode, 2)
        self.assertEqual(result.stdout, "")
        self.assertIn("unknown verb 'tset'", result.stderr)

    def test_help_of_a_verb(self):
        self.assertEqual(dev("build", "--help").stdout, dev("--help").stdout)

    @unittest.skipUnless(platform_at_hand(), "the platform is not at hand: ./dev run -- true prepares it")
    def test_unknown_preset(self):
        result = dev("build", "debug")
        self.assertEqual((result.returncode, result.stderr.count("\n")), (2, 1))
        self.assertIn("unknown preset 'debug'", result.stderr)

    @unittest.skipUnless(platform_at_hand(), "the platform is not at hand: ./dev run -- true prepares it")
    def test_run_needs_a_command(self):
        self.assertEqual(dev("run", "--").returncode, 2)


class PlatformTest(TemporaryFolderTest):
    """Which way ./dev goes: root, the system and the toolbox's making are replaced."""

    def enter(self, system, groups="build test"):
        replaced = (
            "toolbox_ensure() { echo made $1; }; toolbox_enter() { echo entered ${@:2}; exit; }; "
            "apt-get() { echo apt-get $*; }; toolbox_add_group() { echo added $2; }; "
        )
        return self.bash(f"{replaced} {system}; enter_platform '{groups}' run -- true")

    def test_another_kind_of_cpu_is_named_before_anything_is_made(self):
        result = self.enter("uname() { echo aarch64; }; is_root() { true; }; is_debian_13() { false; }")
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertEqual(result.stderr, "octet: needs an x86-64 CPU, this one is aarch64\n")

    def test_without_root_and_without_debian_13_one_line_says_what_to_do(self):
        result = self.enter("is_root() { false; }; is_debian_13() { false; }")
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertRegex(result.stderr, r"\Aoctet: needs Debian 13, or root .* docker build -t octet \.\n\Z")

    def test_debian_13_without_root_names_the_missing_packages(self):
        result = self.enter(
            "is_root() { false; }; is_debian_13() { true; }; toolbox_packages() { echo no-such-package; }"
        )
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertEqual(
            result.stderr,
            "octet: missing packages; as root run: apt-get install --no-install-recommends no-such-package\n",
        )

    def test_debian_13_with_root_installs_them(self):
        result = self.enter(
            "is_root() { true; }; is_debian_13() { true; }; toolbox_packages() { echo no-such-package; }"
        )
        self.assertEqual((result.returncode, result.stdout), (0, ""))
        self.assertIn("apt-get install -qy --no-install-recommends no-such-package", result.stderr)

    def test_a_build_has_the_packages_of_the_tests_that_it_builds(self):
        for verb in ("build", "test"):
            result = self.bash(f"enter_platform() {{ echo $1; exit; }}; main {verb}")
            self.assertEqual((result.returncode, result.stdout), (0, "build test\n"), verb)

    def test_elsewhere_root_enters_a_toolbox(self):
        result = self.enter("is_root() { true; }; is_debian_13() { false; }", groups="build test train")
        toolbox, group, entered = result.stdout.splitlines()
        self.assertRegex(toolbox, rf"^made {self.cache}/toolbox-[0-9a-f]+$")
        self.assertEqual((group, entered), ("added train", f"entered {pathlib.Path.cwd()} {DEV} run -- true"))


@unittest.skipUnless(platform_at_hand(), "the platform is not at hand: ./dev run -- true prepares it")
class RunTest(TemporaryFolderTest):
    def test_exit_code_is_the_commands(self):
        self.assertEqual(dev("run", "--", "sh", "-c", "exit 37").returncode, 37)

    def test_standard_streams_are_the_commands(self):
        result = dev("run", "--", "sh", "-c", "cat; echo to stderr >&2", input="to stdin")
        self.assertEqual((result.stdout, result.stderr), ("to stdin", "to stderr\n"))

    def test_folder_and_arguments_are_kept(self):
        inside = self.folder / "a folder"
        inside.mkdir()
        (inside / "mine").write_text("content")
        result = dev("run", "--", "sh", "-c", 'pwd; cat mine; echo " $1"', "sh", "two  words", cwd=inside)
        self.assertEqual(result.stdout, f"{inside}\ncontent two  words\n")

    def test_environment(self):
        environment = {**os.environ, "MINE": "kept", "LANG": "de_DE"}
        result = dev("run", "--", "sh", "-c", 'echo "$MINE"; echo "$PATH"', env=environment)
        mine, path = result.stdout.splitlines()
        self.assertEqual(mine, "kept")
        self.assertEqual(path.split(":")[0], f"{ROOT}/build/release")

    def test_platform_is_debian_13(self):
        result = dev("run", "--", "sh", "-c", ". /etc/os-release; echo $ID $VERSION_ID")
        self.assertEqual(result.stdout, "debian 13\n")

    def test_sigterm_reaches_the_command(self):
        script = "trap 'echo ended; exit 5' TERM; echo ready; while :; do sleep 0.02; done"
        with subprocess.Popen([DEV, "run", "--", "bash", "-c", script], stdout=subprocess.PIPE, text=True) as process:
            self.assertEqual(process.stdout.readline(), "ready\n")
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.communicate(timeout=TIMEOUT)[0], "ended\n")
        self.assertEqual(process.returncode, 5)


class StampTest(TemporaryFolderTest):
    """A toolbox of two packages, three files."""

    def setUp(self):
        super().setUp()
        self.toolbox = self.cache / "toolbox"
        info = self.toolbox / "var/lib/dpkg/info"
        info.mkdir(parents=True)
        files = {"cmake": ["/usr/bin/cmake", "/usr/share/doc/cmake"], "zlib1g": ["/usr/lib/libz.so.1"]}
        for package, paths in files.items():
            (info / f"{package}.list").write_text("".join(f"{path}\n" for path in ["/.", "/usr", *paths]))
            for path in paths:
                file = self.toolbox / path.lstrip("/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("content")
        self.stamp = self.toolbox / ".octet-toolbox"
        self.assertEqual(self.bash(f'toolbox_write_stamp "{self.toolbox}"').returncode, 0)

    def intact(self):
        return self.bash(f'toolbox_intact "{self.toolbox}"').returncode == 0

    def test_whole(self):
        self.assertEqual(self.stamp.read_text(), "/usr/bin/cmake\n/usr/lib/libz.so.1\nend\n")
        self.assertTrue(self.intact())

    def test_unfinished(self):
        self.stamp.unlink()
        self.assertFalse(self.intact())

    def test_stamp_cut_short(self):
        self.stamp.write_text("/usr/bin/cmake\n")
        self.assertFalse(self.intact())
        self.stamp.write_text("")
        self.assertFalse(self.intact())

    def test_file_gone(self):
        (self.toolbox / "usr/bin/cmake").unlink()
        self.assertFalse(self.intact())

    def test_file_emptied(self):
        (self.toolbox / "usr/lib/libz.so.1").write_text("")
        self.assertFalse(self.intact())

    def test_remade_once_by_calls_at_the_same_time(self):
        (self.toolbox / "usr/bin/cmake").unlink()
        make = (
            f"toolbox_make() {{ echo made >> '{self.cache}/made'; sleep 0.2; mkdir \"$1\"; "
            'printf "end\\n" > "$1/$TOOLBOX_STAMP"; }; '
        )
        ensure = f"toolbox_ensure '{self.toolbox}'"
        result = self.bash(f"{make} {ensure} & {ensure} & wait; toolbox_intact '{self.toolbox}'")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual((self.cache / "made").read_text(), "made\n")
        self.assertIn("incomplete, making it again", result.stderr)
        self.assertTrue(self.stamp.exists())

    def test_old_one_is_removed_and_the_one_in_use_kept(self):
        fresh, old = self.cache / "toolbox-fresh", self.cache / "toolbox-old"
        for folder in [fresh, old]:
            folder.mkdir()
            (folder / ".octet-toolbox").write_text("end\n")
        long_ago = time.time() - 30 * 24 * 3600
        os.utime(old / ".octet-toolbox", (long_ago, long_ago))
        self.assertEqual(self.bash(f"toolbox_prune '{self.toolbox}'").returncode, 0)
        self.assertTrue(fresh.exists())
        self.assertFalse(old.exists())

    def test_failed_step_shows_the_log_and_leaves_no_toolbox(self):
        broken = "toolbox_bootstrap() { echo 'no route to anywhere'; return 3; }; "
        new = self.cache / "toolbox-new"
        result = self.bash(f"{broken} debootstrap() {{ :; }}; toolbox_ensure '{new}'")
        self.assertEqual(result.returncode, 1)
        self.assertIn("no route to anywhere", result.stderr)
        self.assertFalse(new.exists())

    def test_making_that_was_killed_leaves_nothing_that_is_taken_for_a_toolbox(self):
        new = self.cache / "toolbox-new"
        made = (
            "df() { echo 9999M; }; debootstrap() { :; }; toolbox_use_host_proxy() { :; }; toolbox_configure() { :; }; "
            "toolbox_install() { mkdir -p $1/var/lib/dpkg/info; echo /tool | tee $1/tool $1/var/lib/dpkg/info/tool.list; }; "
        )
        killed = self.bash(f"{made} toolbox_bootstrap() {{ touch $1/half; kill -KILL $$; }}; toolbox_ensure '{new}'")
        self.assertEqual(killed.returncode, -signal.SIGKILL)
        self.assertFalse(new.exists())
        half = list(self.cache.glob("making-*"))
        self.assertEqual(len(half), 1)
        result = self.bash(f"{made} toolbox_bootstrap() {{ :; }}; toolbox_ensure '{new}'; toolbox_intact '{new}'")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertFalse(half[0].exists())
        self.assertFalse((new / "half").exists())

    def test_stopped_making_is_removed(self):
        new = self.cache / "toolbox-new"
        slow = "df() { echo 9999M; }; debootstrap() { :; }; toolbox_use_host_proxy() { :; }; "
        result = self.bash(
            f"{slow} toolbox_bootstrap() {{ kill -TERM $$; sleep 60; }}; toolbox_ensure '{new}'"
        )
        self.assertEqual(result.returncode, 143)
        self.assertIn("stopped; the half-made toolbox is removed", result.stderr)
        self.assertEqual(list(self.cache.glob("*toolbox-*")) + list(self.cache.glob("making-*")), [])

    def test_a_signal_before_any_command_of_a_step_ends_it_at_once(self):
        """Bash runs this line before each command of the functions: the first one, the second, ... is signalled."""
        for function in ("start_group", "wait_group"):
            body = self.bash(f"declare -f {function}").stdout.splitlines()
            for line in range(len(body) - 3):
                with self.subTest(function, command=line):
                    new = self.cache / f"toolbox-{function}-{line}"
                    began = time.monotonic()
                    result = self.bash(
                        "df() { echo 9999M; }; debootstrap() { :; }; toolbox_use_host_proxy() { :; }; "
                        f"toolbox_bootstrap() {{ sleep {TIMEOUT}; }}; seen=0; set -T; "
                        f"trap '[[ ${{FUNCNAME[0]:-}} != {function} ]] || ((BASH_SUBSHELL || seen++ != {line})) || kill -TERM $$' DEBUG; "
                        f"toolbox_ensure '{new}'"
                    )
                    self.assertEqual(result.returncode, 143, result.stderr)
                    self.assertIn("stopped; the half-made toolbox is removed", result.stderr)
                    self.assertLess(time.monotonic() - began, TIMEOUT / 2)
                    self.assertEqual(list(self.cache.glob("making-*")), [])

    @unittest.skipUnless(can_make_namespaces(), "needs root and mount namespaces")
    def test_no_mirror_is_named(self):
        tools = self.folder / "tools"
        tools.mkdir()
        (tools / "debootstrap").write_text('#!/bin/sh\necho "$@"\n')
        (tools / "debootstrap").chmod(0o755)
        result = self.bash(f"PATH='{tools}':$PATH; toolbox_bootstrap '{self.folder}/root'")
        self.assertRegex(
            result.stdout, rf"^--variant=minbase --include=ca-certificates trixie {self.folder}/root( +sid)?\n$"
        )


class KeyTest(TemporaryFolderTest):
    def test_key_follows_the_packages(self):
        self.assertEqual(self.bash("toolbox_key build").stdout, self.bash("toolbox_key build").stdout)
        self.assertNotEqual(self.bash("toolbox_key build").stdout, self.bash("toolbox_key build test").stdout)

    def test_comments_are_no_packages(self):
        for line in self.bash("toolbox_packages build test train").stdout.splitlines():
            self.assertRegex(line, r"^[a-z0-9][a-z0-9+.-]+$")


@unittest.skipUnless(can_make_namespaces(), "needs root and mount namespaces")
class EnterTest(TemporaryFolderTest):
    """Enters a bare root whose /usr is this system's own."""

    def setUp(self):
        super().setUp()
        self.toolbox = self.cache / "toolbox"
        for folder in ["usr", "etc", "var/lib", "proc", "sys", "dev"]:
            (self.toolbox / folder).mkdir(parents=True)
        for link in ["bin", "lib", "lib64"]:
            (self.toolbox / link).symlink_to(f"usr/{link}")

    def enter(self, folder, command):
        return self.bash(self.entering(folder, command))

    def entering(self, folder, command):
        """Returns the bash line that becomes `command` in the bare root."""
        lend_usr = f'mount --rbind /usr "{self.toolbox}/usr"; toolbox_enter "{self.toolbox}" "{folder}" {command}'
        source = f'source "{ROOT}/deploy/toolbox/toolbox.sh"; {lend_usr}'
        return f"exec unshare --mount --propagation private bash -ec '{source}'"

    def in_use(self):
        return self.bash(f"toolbox_in_use '{self.toolbox}'").returncode == 0

    def test_is_in_use_while_a_command_runs_in_it(self):
        command = ["bash", "-c", f'source "{DEV}"; {self.entering(self.folder, "cat")}']
        environment = {**os.environ, "OCTET_CACHE": str(self.cache)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=environment, **pipes) as process:
            process.stdin.write("entered\n")
            process.stdin.flush()
            self.assertEqual(process.stdout.readline(), "entered\n")
            self.assertTrue(self.in_use())
        self.assertFalse(self.in_use())

    def test_becomes_the_command(self):
        (self.folder / "mine").write_text("content")
        result = self.enter(self.folder, 'sh -c "pwd; cat mine; exit 9"')
        self.assertEqual((result.stdout, result.returncode), (f"{self.folder}\ncontent", 9), result.stderr)

    def test_leaves_no_mount(self):
        self.enter(self.folder, "true")
        self.assertNotIn(str(self.cache), pathlib.Path("/proc/self/mountinfo").read_text())

    def test_checkout_under_a_system_folder_is_seen(self):
        with tempfile.TemporaryDirectory(dir="/var/lib") as folder:
            pathlib.Path(folder, "mine").write_text("content")
            result = self.enter(folder, "cat mine")
            self.assertEqual((result.stdout, result.returncode), ("content", 0), result.stderr)

    def test_host_libraries_do_not_leak_in(self):
        os.environ["LD_LIBRARY_PATH"] = "/nowhere"
        self.addCleanup(os.environ.pop, "LD_LIBRARY_PATH")
        result = self.enter(self.folder, 'sh -c "echo \\$LANG:\\$LD_LIBRARY_PATH:\\$PATH"')
        self.assertRegex(result.stdout, r"^C.UTF-8::/usr/local/sbin:")


if __name__ == "__main__":
    unittest.main()
