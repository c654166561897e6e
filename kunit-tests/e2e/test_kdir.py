# SPDX-License-Identifier: GPL-2.0
"""A kernel that the modules cannot be built for, or a machine that lacks something:
one line that says what to do."""

import os
import subprocess
from pathlib import Path

import pytest
from nullhz.guest import TOP

CONFIG = "include/config"


@pytest.fixture
def make(tmp_path):
    def run(*arguments, lines=1):
        command = ["make", "--no-print-directory", "-C", TOP, f"O={tmp_path / 'build'}", *arguments]
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("NULLHZ", "MAKE"))
        }
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode != 0
        # Nor lines of progress: what is missing here may be made before something is found wrong.
        said = [line for line in done.stderr.splitlines() if not line.startswith(("make", "  "))]
        assert 1 <= len(said) <= lines, done.stderr
        assert all(line.startswith("nullhz: ") for line in said), done.stderr
        return said[0]

    return run


@pytest.fixture
def tree(tmp_path):
    """What looks like a built kernel tree, as far as is looked."""

    def build(
        release="7.3.4-nullhz",
        rust=True,
        watchdog="y",
        mirror=True,
        symvers=True,
        metadata=True,
        series=True,
        compiler=None,
    ):
        path = tmp_path / "linux"
        for directory in (CONFIG, "rust"):
            (path / directory).mkdir(parents=True)
        (path / "Makefile").touch()
        (path / CONFIG / "kernel.release").write_text(f"{release}\n")
        rustc = subprocess.run(["/usr/bin/rustc", "--version"], capture_output=True, text=True).stdout.strip()
        options = f'CONFIG_RUST=y\nCONFIG_RUSTC_VERSION_TEXT="{compiler or rustc}"\n' if rust else ""
        options += f"CONFIG_WATCHDOG_CORE={watchdog}\n"
        options += "CONFIG_HMM_MIRROR=y\n" if mirror else ""
        (path / CONFIG / "auto.conf").write_text(options)
        if symvers:
            symbol = "0x0\twatchdog_gate_install\tvmlinux\tEXPORT_SYMBOL_GPL\t\n" if series else ""
            (path / "Module.symvers").write_text(symbol)
        if metadata:
            (path / "rust/libkernel.rmeta").touch()
        return path

    return build


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"release": "6.12.9"}, "Linux 6.12.9: Linux 7.3 is needed"),
        ({"release": "7.4.0-rc1"}, "Linux 7.4.0-rc1: Linux 7.3 is needed"),
        ({"rust": False}, "CONFIG_RUST=y"),
        ({"watchdog": "m"}, "CONFIG_WATCHDOG_CORE=y"),
        ({"mirror": False}, "CONFIG_HMM_MIRROR=y"),
        ({"symvers": False}, "Module.symvers"),
        ({"metadata": False}, "Rust metadata"),
        ({"series": False}, "kernel-patches/series"),
        ({"compiler": "rustc 1.80.0 (051478957 2024-07-21)"}, "RUSTC="),
    ],
)
def test_a_tree_that_does_not_fit(make, tree, how, says):
    assert says in make("modules", f"KDIR={tree(**how)}")


def test_no_tree(make, tmp_path):
    assert "no such directory" in make("modules", f"KDIR={tmp_path / 'none'}")
    (tmp_path / "empty").mkdir()
    assert "no Makefile" in make("modules", f"KDIR={tmp_path / 'empty'}")
    (tmp_path / "empty" / "Makefile").touch()
    assert "not built" in make("modules", f"KDIR={tmp_path / 'empty'}")


def test_a_missing_source(make, tmp_path):
    said = make("kernel", f"KERNEL_SRC={tmp_path / 'none.tar.xz'}", f"NULLHZ_CACHE={tmp_path / 'cache'}")
    assert "no such file" in said.lower()


@pytest.mark.parametrize(
    ("makefile", "told"),
    [
        (None, "is no Linux source"),
        ("all:\n", "is no Linux source"),
        ("VERSION = 6\nPATCHLEVEL = 6\n", "is Linux 6.6"),
    ],
)
def test_a_source_that_is_another(make, tmp_path, makefile, told):
    source = tmp_path / "source"
    source.mkdir()
    if makefile:
        (source / "Makefile").write_text(makefile)
    tools = Path(os.environ["NULLHZ_CACHE"]) / "tools"
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/tools").symlink_to(tools)
    said = make("kernel", f"KERNEL_SRC={source}", f"NULLHZ_CACHE={tmp_path / 'cache'}")
    assert told in said and "Linux 7.3 is needed" in said


def test_a_missing_tool(tmp_path):
    """A machine with everything but the program that packs the image."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for directory in ("/usr/sbin", "/usr/bin"):
        for program in Path(directory).iterdir():
            if program.name != "mksquashfs" and not (tools / program.name).exists():
                (tools / program.name).symlink_to(program)
    environment = {"PATH": str(tools), "RUSTC": str(tools / "rustc"), "HOME": str(tmp_path)}
    command = [tools / "bash", TOP / "scripts/image", tmp_path / "image.squashfs"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "missing: mksquashfs" in done.stderr and "make setup" in done.stderr


def test_a_full_disk(make, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "full", full], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"this machine lets nobody mount: {mounted.stderr.strip()}")
    try:
        # Two steps begin at the same time.
        said = make("kernel", f"NULLHZ_CACHE={full}", lines=2)
    finally:
        subprocess.run(["umount", full], check=True)
    assert "MiB" in said and "NULLHZ_CACHE" in said


@pytest.mark.parametrize("target", ["clean", "modules", "help"])
@pytest.mark.parametrize("folder", ["", "/tmp/one two"])
def test_no_folder_to_build_in(target, folder):
    command = ["make", "--no-print-directory", "--dry-run", "-C", TOP, f"O={folder}", target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and not done.stdout
    assert done.stderr.count("\n") == 1
    assert f"O={folder}: the name of a folder is needed, without blanks" in done.stderr


def clean(tmp_path, folder):
    """As in a checkout: what make clean removes beside the build's folder is not this one's."""
    command = ["make", "-C", tmp_path, "-f", TOP / "Makefile", f"O={folder}", "clean"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_clean_removes_nothing_of_others(make, tmp_path):
    folder = tmp_path / "build"
    (folder / "cargo").mkdir(parents=True)
    # Not even when something was built there.
    make("modules", f"KDIR={tmp_path / 'none'}")
    done = clean(tmp_path / "..", folder)
    assert done.returncode != 0 and "made by something else" in done.stderr
    assert (folder / "cargo").is_dir()


def test_clean_removes_what_was_built(make, tmp_path):
    folder = tmp_path / "build"
    make("modules", f"KDIR={tmp_path / 'none'}")
    (folder / "cargo").mkdir()
    (folder / "others").mkdir()
    assert clean(tmp_path / "..", folder).returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == [".nullhz-build", "others"]
    # A checkout's own.
    (folder / ".nullhz-build").unlink()
    (folder / "cargo").mkdir()
    assert clean(tmp_path, folder).returncode == 0
    assert [path.name for path in folder.iterdir()] == ["others"]
