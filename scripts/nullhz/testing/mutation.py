# SPDX-License-Identifier: GPL-2.0
"""Do the tests notice when the code is wrong? Breaks it in a copy, one change at a time.

kunit-tests/mutants.toml has the changes, and who has to notice each of them.
"""

import contextlib
import functools
import os
import re
import shutil
import subprocess
import time
import tomllib
from dataclasses import dataclass

from ..errors import NodeError, SetupError
from ..guest import TOP
from ..qemu import Config, build_dir
from ..vm import VM
from .host import run_patiently
from .kunit import Kunit

MUTANTS = TOP / "kunit-tests" / "mutants.toml"
# Longer, and whoever was to notice hangs: that is noticed, too.
PATIENCE = 600
# In files of the kernel tree with the series.
LINUX = "linux/"


@dataclass
class Mutant:
    file: str
    old: str
    new: str
    tests: str
    unseen: str = ""

    @property
    def name(self):
        """The line that is broken, for people."""
        return f"{self.file}: {' '.join(self.old.split())} => {' '.join(self.new.split()) or '(nothing)'}"


@dataclass
class Outcome:
    """`noticed`: by whom; empty: by nobody. `broken`: why there was nothing to notice."""

    noticed: str = ""
    broken: str = ""


def mutants():
    return [Mutant(**entry) for entry in tomllib.loads(MUTANTS.read_text())["mutant"]]


# A name that no suite has.
NONE = "none"
FILTER = "/sys/module/kunit/parameters/filter_glob"


class Mutation:
    """A copy of the working tree, and those who look at it."""

    def __init__(self, flavour="test"):
        self.flavour = flavour
        self.place = build_dir() / "mutate"
        self.tree = self.place / "tree"
        self.linux = self.place / "linux"
        self.cargo = self.place / "cargo"
        shutil.rmtree(self.tree, ignore_errors=True)
        files = subprocess.run(["git", "-C", TOP, "ls-files", "-z"], capture_output=True, check=True).stdout
        for name in files.decode().rstrip("\0").split("\0"):
            source = TOP / name
            if source.exists():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                # As of now: what was built of the last defect of another run is older.
                shutil.copy(source, self.tree / name, follow_symlinks=False)

    def path(self, name):
        return self.linux_file(name[len(LINUX) :]) if name.startswith(LINUX) else self.tree / name

    def linux_file(self, name):
        self.copy_kernel()
        return self.linux / name

    @contextlib.contextmanager
    def broken(self, mutant):
        """The tree has this defect within."""
        path = self.path(mutant.file)
        text = path.read_text()
        if text.count(mutant.old) != 1:
            raise SetupError(f"{mutant.file} has this {text.count(mutant.old)} times, not once: {mutant.old}")
        path.write_text(text.replace(mutant.old, mutant.new))
        try:
            yield
        finally:
            path.write_text(text)

    # --- Who notices

    def ask(self, tests):
        """What these tests say of the tree as it is."""
        kind, *arguments = tests.split()
        return {"host": self.host, "kunit": self.kunit, "kernel": self.boot}[kind](*arguments)

    def host(self, crate, test=None):
        """cargo test of a crate of kunit-tests/host."""
        manifest = self.tree / "kunit-tests/host/Cargo.toml"
        package = f"nullhz-{crate.replace('_', '-')}-host"
        command = ["cargo", "test", "-q", "--locked", "--no-fail-fast", "--manifest-path", manifest]
        command += ["-p", package, "--target-dir", self.cargo]
        command += ["--test", test] if test else []
        built = run_patiently([*command, "--no-run"])
        if built.returncode:
            return Outcome(broken=built.stdout[-2000:])
        running = run_patiently(["timeout", "-k", "5", str(PATIENCE), *command])
        if running.returncode == 124:
            return Outcome(noticed="did not end")
        failed = re.findall(r"^    (\w[\w:]*)$", running.stdout, re.M)
        named = ", ".join(sorted(set(failed))) or running.stdout[-500:]
        return Outcome(noticed=named if running.returncode else "")

    def kunit(self, folder):
        """A module of suites, in a node that boots for it alone."""
        module = f"nullhz_{folder}"
        environment = {**os.environ, "NULLHZ_BUILD": str(self.place / "build"), "FLAVOUR": self.flavour}
        # As it was mounted when the node booted; only this module is another one.
        built = subprocess.run(
            [self.tree / "scripts/modules", "modules"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if built.returncode:
            return Outcome(broken=built.stdout[-2000:])
        file = self.place / "build/modules" / self.flavour / "kunit-tests" / folder / f"{module}.ko"
        return self.in_node(self.config(NONE), functools.partial(self.load, module, file))

    def config(self, suites, **options):
        """A node that runs these suites at boot."""
        boot_line = f"kunit.enable=1 kunit.autorun=1 kunit.filter_glob={suites} nullhz.agent=off"
        return Config(flavour=self.flavour, append=boot_line, checkpoint=64, **options)

    def load(self, module, file, node, vm):
        """Runs the suites of a module; names of the tests that fail."""
        before = node.suites()
        needs = vm.run(["modinfo", "-F", "depends", module]).stdout.strip()
        for name in filter(None, needs.split(",")):
            vm.run(["modprobe", name])
        # All of the module's.
        vm.run(f"printf '*' > {FILTER}")
        vm.put(file, f"/run/{module}.ko")
        loaded = vm.run(["insmod", f"/run/{module}.ko"], 120, check=False)
        failed = ["insmod"] if loaded.rc else []
        suites = sorted(node.suites() - before)
        if not suites:
            failed += ["no suite"]
        for suite in suites:
            failed += [name for name, status in node.parse(suite)[0] if status not in ("PASS", "SKIP")]
        return failed + vm.splats()

    def in_node(self, config, look):
        """What `look` finds in a node of this kind; a node that breaks has noticed as well."""
        saved = self.place / "saved"
        log = self.place / "console.log"
        parser = (build_dir() / "kernel" / self.flavour).resolve() / "source/tools/testing/kunit/kunit.py"
        kept = config.kernel is None
        if kept and not saved.exists():
            with VM(config, log=log, boot_timeout=180) as vm:
                vm.save(saved)
        try:
            with VM(config, log=log, boot_timeout=180, saved=saved if kept else None) as vm:
                failed = look(Kunit(vm, parser, None), vm)
        except NodeError as error:
            failed = [str(error).splitlines()[0]]
        return Outcome(noticed=", ".join(failed))

    # --- The kernel

    def built(self):
        return (build_dir() / "kernel" / self.flavour).resolve()

    def copy_kernel(self):
        """A copy of the kernel tree of this flavour, with what was built in it."""
        built = self.built()
        if self.linux.exists():
            return
        part = self.linux.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        entries = [path for path in built.parent.iterdir() if not path.name.startswith("o-")]
        subprocess.run(["cp", "-a", "--reflink=auto", *entries, built, part], check=True)
        part.rename(self.linux)

    def boot(self, suite):
        """A suite that runs at boot, in a kernel with the defect."""
        self.copy_kernel()
        built = self.built()
        command = [TOP / "scripts/kernel/remake", self.linux, built.parent, built]
        remade = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if remade.returncode:
            return Outcome(broken=remade.stdout[-2000:])
        config = self.config(suite, kernel=self.linux / built.name / "vmlinux")
        return self.in_node(config, lambda node, vm: self.judged(node, suite))

    @staticmethod
    def judged(node, suite):
        if suite not in node.suites():
            return [f"no suite {suite}"]
        return [name for name, status in node.parse(suite)[0] if status not in ("PASS", "SKIP")]


def run(wanted):
    """Breaks everything that `wanted` matches; exit status."""
    mutation = Mutation()
    chosen = [mutant for mutant in mutants() if re.search(wanted, f"{mutant.name} {mutant.tests}")]
    if not chosen:
        raise SetupError(f"{MUTANTS} has nothing like {wanted}")
    counts = {"noticed": 0, "unseen": 0, "missed": 0, "broken": 0}
    for tests in dict.fromkeys(mutant.tests for mutant in chosen):
        outcome = mutation.ask(tests)
        if outcome.noticed or outcome.broken:
            raise SetupError(f"{tests} fails without any defect: {outcome.noticed or outcome.broken}")
        print(f"ok        {tests}: passes as it is", flush=True)
    for number, mutant in enumerate(chosen, 1):
        begun = time.monotonic()
        with mutation.broken(mutant):
            outcome = mutation.ask(mutant.tests)
        if outcome.broken:
            verdict, detail = "broken", outcome.broken
        elif outcome.noticed:
            verdict, detail = "noticed", outcome.noticed
        else:
            verdict, detail = ("unseen", mutant.unseen) if mutant.unseen else ("missed", "by nobody")
        counts[verdict] += 1
        seconds = time.monotonic() - begun
        print(f"{verdict:8}{seconds:6.1f} s  {number}/{len(chosen)} {mutant.tests}: {mutant.name}")
        print("\n".join(f"    | {line[:160]}" for line in detail.splitlines()), flush=True)
    share = counts["noticed"] / max(1, len(chosen))
    print(f"{share:.0%} of {len(chosen)} defects were noticed")
    told = "{noticed} noticed, {missed} missed, {unseen} unseen for a reason, {broken} did not build"
    print(told.format(**counts))
    return 1 if counts["missed"] or counts["broken"] or share < 0.9 and len(chosen) > 9 else 0
