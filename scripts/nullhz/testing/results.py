# SPDX-License-Identifier: GPL-2.0
"""Results of tests: rows as they come, files and a summary at the end."""

import contextlib
import json
import re
import threading
import time
import xml.etree.ElementTree as xml

from ..qemu import build_dir

SLOWEST = 12


class Results:
    """Rows as they come, from several threads; counts and files at the end."""

    def __init__(self):
        self.tests = []
        self.costs = {}
        self.begun = time.monotonic()
        self._lock = threading.RLock()

    def add(self, part, group, name, status, seconds=None, detail="", more=None):
        """`status`: passed, failed or skipped; `detail` says why; `more`: further items."""
        test = {"part": part, "group": group, "name": name, "status": status, "detail": detail}
        test = {**test, "seconds": None if seconds is None else round(seconds, 3), **(more or {})}
        took = "" if seconds is None else f"{seconds:7.1f} s"
        mark = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}[status]
        with self._lock:
            self.tests.append(test)
            print(f"{mark:8}{took:>10}  {part:6}{group}: {name}", flush=True)
            if detail:
                print(indented(detail), flush=True)

    def cost(self, part, group, seconds, notes=()):
        """Adds to what a group has cost: seconds, and pairs of a name and a number."""
        with self._lock:
            costs = self.costs.setdefault((part, group), {"seconds": 0})
            for name, value in (("seconds", seconds), *notes):
                costs[name] = costs.get(name, 0) + value

    def count(self, status, part=None):
        return sum(test["status"] == status and part in (None, test["part"]) for test in self.tests)

    # --- Second tries

    def failed_nodes(self):
        """Tests of pytest, by its names for them, that may be run once more."""
        failed = [test for test in self.tests if test["status"] == "failed" and "node" in test]
        final = {test["node"] for test in failed if test["final"]}
        return list(dict.fromkeys(test["node"] for test in failed if test["node"] not in final))

    @contextlib.contextmanager
    def second_try(self, node):
        """What is added within is the second try of a test: it counts, if it passes."""
        first = self.of(node)
        print(f"once more: {node}", flush=True)
        yield
        with self._lock:
            # Other threads have added theirs meanwhile.
            second = [test for test in self.of(node) if not any(test is other for other in first)]
            told = "\n".join(test["detail"] for test in first if test["status"] == "failed")
            passed = second and all(test["status"] == "passed" for test in second)
            gone = first if passed else second
            self.tests = [test for test in self.tests if not any(test is other for other in gone)]
            for test in second if passed else ():
                test["first_failure"] = told

    def of(self, node):
        return [test for test in self.tests if test.get("node") == node]

    def excuse(self, node, reason):
        """The failure of a test of pytest is none, for this reason."""
        for test in self.tests:
            if test.get("node") == node and test["status"] == "failed":
                test["status"] = "skipped"
                test["detail"] = f"{reason}: {test['detail']}"

    # --- The end

    def finish(self, parts):
        """Says how it went; returns the exit status."""
        for part in parts:
            if not any(self.count(status, part) for status in ("passed", "failed")):
                self.add(part, part, "ran at least one test", "failed", detail="it ran none")
        seconds = time.monotonic() - self.begun
        counts = {status: self.count(status) for status in ("passed", "failed", "skipped")}
        build = build_dir()
        costs = [{"part": part, "group": group, **cost} for (part, group), cost in self.costs.items()]
        summary = {**counts, "seconds": round(seconds, 1), "costs": costs, "tests": self.tests}
        (build / "test.json").write_text(json.dumps(summary, indent=1) + "\n")
        self.write_junit(build / "test.xml")
        self.print_slowest()
        print("\npart     passed  failed  skipped")
        for part in parts:
            numbers = [self.count(status, part) for status in counts]
            print("{:8}{:7}{:8}{:9}".format(part, *numbers))
        for test in self.tests:
            name = f"{test['part']} {test['group']}: {test['name']}"
            if test["status"] == "failed":
                print(f"FAILED  {name}")
            elif "first_failure" in test:
                print(f"passed at the second attempt: {name}\n{indented(test['first_failure'])}")
        print(f"in {seconds / 60:.1f} minutes; details: {build}/test.json, consoles: {build}/log/e2e")
        print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
        return 1 if counts["failed"] else 0

    def print_slowest(self):
        """Where the time went: what took longest, with the nodes that it had."""
        print("\nslowest                           seconds   boots  copies  getting nodes  CPU of nodes")
        slowest = sorted(self.costs.items(), key=lambda item: -item[1]["seconds"])
        for (part, group), cost in slowest[:SLOWEST]:
            names = ("seconds", "boots", "resumed", "boot_s", "cpu_s")
            numbers = [round(cost.get(name, 0)) for name in names]
            print("{:32}{:9}{:8}{:8}{:13} s{:12} s".format(f"{part} {group}", *numbers))

    def write_junit(self, path):
        root = xml.Element("testsuites")
        for part in dict.fromkeys(test["part"] for test in self.tests):
            tests = [test for test in self.tests if test["part"] == part]
            suite = xml.SubElement(root, "testsuite", name=part, tests=str(len(tests)))
            for test in tests:
                attributes = {"classname": f"{part}.{test['group']}", "name": test["name"]}
                case = xml.SubElement(suite, "testcase", time=str(test["seconds"] or 0), **attributes)
                if test["status"] != "passed":
                    kind = "failure" if test["status"] == "failed" else "skipped"
                    # XML has no place for most control characters.
                    text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "?", test["detail"])
                    xml.SubElement(case, kind, message=text[:200]).text = text
        xml.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def indented(text):
    return "\n".join(f"    | {line}" for line in text.splitlines())
