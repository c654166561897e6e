# SPDX-License-Identifier: GPL-2.0
"""Adds up what came out of a soak against what was made, and says what must be zero and is not."""

import errno
from collections import Counter

from nullhz import bus

from .books import STALL_COUNTERS, live

OTHER_CPUS = 3

# In this order; what is in ZERO makes the soak fail when it is not zero.
ZERO = (
    "lost, not counted",
    "seen twice or out of order",
    "records with bytes that nobody wrote",
    "stall events that differ from the module's counters",
    "incidents without an answer",
    "failed snapshots without a reason",
    "acknowledged snapshots that are missing",
    "snapshots that are not valid",
    "snapshots gone before they were looked at",
)


class Account:
    """Totals over all boots."""

    def __init__(self):
        self.sums = Counter()
        self.snapshots = {}
        self.failures = Counter()
        self.detail = []
        self.grown_kib = 0

    def close(self, life, ledger):
        """Adds a boot: `ledger` is what its ledger has counted."""
        made, books = life.made, life.books
        self._close_stream(made, books, ledger)
        self._close_stalls(made, books, ledger)
        self._close_incidents(made, books, ledger)
        self._close_snapshots(books)

    def _wrong(self, name, count, detail):
        if count:
            self.sums[name] += count
            self.detail.append(f"{name}: {detail}")

    def _close_stream(self, made, books, ledger):
        """Machine checks and reports: each was seen, or is in somebody's count."""
        checks = made.checks - made.first_check
        raised = Counter(
            event["mce"]["addr"]
            for event in books.events(source=bus.SRC_MCE)
            if live(event) and event["mce"]["addr"] in made.raised
        )
        reports = sum(generator["seen"] for generator in ledger["generators"])
        gaps = sum(generator["gaps"] for generator in ledger["generators"])
        # Storms of all sources but ours are none.
        summed = sum(
            event["count"]
            for event in books.events(source=bus.SRC_BUS, kind=bus.BUS_STORM)
            if event["bus"]["source"] == bus.SRC_MCE
        )
        kernel = sum(made.kernel_lost.values())
        missing = checks - ledger["checks"] + len(made.raised) - len(raised)
        tail = sum(made.reports) - reports - gaps
        counted = summed + kernel + ledger["lost"]
        uncounted = max(0, missing + gaps - counted) + max(0, tail) + ledger["gaps"]
        uncounted += max(0, ledger["head_seq"] - ledger["read_to"])
        if not ledger["lost"]:
            # Nor may more be counted than are missing, but for the other CPUs' records of a check
            # that was raised on all of them.
            uncounted += max(0, summed + kernel - missing - len(made.raised) * OTHER_CPUS)
        self.sums["machine checks made"] += checks + len(made.raised)
        self.sums["machine checks seen"] += ledger["checks"] + len(raised)
        self.sums["of those, in storms' sums"] += summed
        self.sums["of those, counted as lost while no module was loaded"] += kernel
        self.sums["reports made"] += sum(made.reports)
        self.sums["reports seen"] += reports
        self.sums["records read"] += ledger["records"]
        self.sums["lost by the reader, and told so"] += ledger["lost"]
        named = {
            name: ledger[name] for name in ("missing", "lost", "gaps", "head_seq", "read_to", "generators")
        }
        facts = f"made {checks} + {len(made.raised)}, {made.reports}; summed {summed}, "
        facts += f"kernel {dict(made.kernel_lost)}, ledger {named}"
        self._wrong("lost, not counted", uncounted, facts)
        twice = ledger["twice"] + ledger["backwards"] + sum(count - 1 for count in raised.values())
        twice += sum(generator["backwards"] for generator in ledger["generators"])
        self._wrong("seen twice or out of order", twice, facts)
        self._wrong("records with bytes that nobody wrote", ledger["dirty"], facts)

    def _close_stalls(self, made, books, ledger):
        events = Counter(event["kind"] for event in books.events(source=bus.SRC_STALL) if live(event))
        differ = 0
        for kind, name in STALL_COUNTERS.items():
            self.sums[f"ranks: {name}"] += events[kind]
            # What the reader has lost is told by number only.
            differ += max(0, abs(made.counters[name] - events[kind]) - ledger["lost"])
        facts = f"{dict(made.counters)} against {dict(events)}"
        self._wrong("stall events that differ from the module's counters", differ, facts)

    def _close_incidents(self, made, books, ledger):
        answered = [event for event in books.events(source=bus.SRC_BUS, kind=bus.BUS_ACKED) if live(event)]
        expired = [event for event in books.events(source=bus.SRC_BUS, kind=bus.BUS_EXPIRED) if live(event)]
        numbers = {event["bus"]["incident"] for event in answered}
        without = set(range(1, ledger["last_incident"] + 1)) - numbers
        self.sums["incidents opened"] += ledger["last_incident"]
        self.sums["incidents acknowledged"] += len(numbers)
        self.sums["of those, after their deadline"] += len(expired)
        self._wrong("incidents without an answer", len(without), sorted(without))
        seen = {line["id"] for line in books.snapshots.all() if "id" in line}
        missing, unexplained = set(), []
        for event in answered:
            answer = event["bus"]
            if answer["result"]:
                name = errno.errorcode.get(-answer["result"], answer["result"])
                self.failures[name] += 1
                when = books.host(event["mono_ns"])
                if not any(excuse.covers(when) for excuse in made.excuses):
                    unexplained.append(f"incident {answer['incident']}: {name}")
            elif answer["snapshot_id"] not in seen:
                missing.add(answer["snapshot_id"])
        self._wrong("failed snapshots without a reason", len(unexplained), unexplained)
        self._wrong("acknowledged snapshots that are missing", len(missing), sorted(missing))

    def _close_snapshots(self, books):
        for line in books.snapshots.all():
            if "name" not in line:
                continue
            if line["gone"]:
                self._wrong("snapshots gone before they were looked at", 1, line)
            elif not (line["readonly"] and line["whole"]):
                self._wrong("snapshots that are not valid", 1, line)
            self.snapshots[line["name"]] = line

    def rows(self, made):
        """(name, value, must be zero) in the order of the account."""
        for name, count in sorted(made.actions.items()):
            yield f"done: {name.replace('_', ' ')}", count, False
        for name, count in sorted(made.stalls.items()):
            yield f"done: stalls by {name}", count, False
        for name, count in sorted(made.notes.items()):
            yield name, count, False
        for name, count in self.sums.items():
            if name not in ZERO:
                yield name, count, False
        yield "snapshots made", len(self.snapshots), False
        whole = [line for line in self.snapshots.values() if line["readonly"] and line["whole"]]
        yield "snapshots valid", len(whole), False
        yield "checkpoints in them, all checksums right", sum(len(line["steps"]) for line in whole), False
        for name, count in sorted(self.failures.items(), key=str):
            yield f"snapshots refused: {name}, while the volume was full or read-only", count, False
        yield "kernel memory grown, most in a boot, KiB", self.grown_kib, False
        for name in ZERO:
            yield name, self.sums[name], True
        yield "problems", len(made.problems), True
