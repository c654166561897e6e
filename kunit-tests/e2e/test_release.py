# SPDX-License-Identifier: GPL-2.0
"""What is handed over is what its commit names, or says that it is not."""

import importlib.machinery
import importlib.util
import subprocess

import pytest
from nullhz.guest import TOP


@pytest.fixture
def release(tmp_path, monkeypatch):
    """scripts/release on a repository with one file."""
    loader = importlib.machinery.SourceFileLoader("release", str(TOP / "scripts/release"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("release", loader))
    loader.exec_module(module)
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / ".gitignore").write_text("*.o\n")
    (repository / "file").write_text("as committed\n")
    author = ("-c", "user.name=nullhz", "-c", "user.email=nullhz@localhost")
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-C", repository, *command], check=True)
    monkeypatch.setattr(module, "TOP", repository)
    return module


@pytest.mark.parametrize(
    ("changed", "is_release"),
    [(None, True), ("ignored.o", True), ("file", False), ("new", False)],
)
def test_the_commit_is_what_is_packed(release, tmp_path, capfd, changed, is_release):
    if changed:
        (release.TOP / changed).write_text("changed\n")
    out = tmp_path / "out"
    out.mkdir()
    release.source(out, "nullhz-1")
    told = capfd.readouterr().err
    assert ("this is no release" in told, "and changes" in (out / "commit").read_text()) == (
        not is_release,
        not is_release,
    )
