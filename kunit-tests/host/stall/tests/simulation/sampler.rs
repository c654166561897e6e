// SPDX-License-Identifier: GPL-2.0

//! The sampler's thread: looks at a rank every 10 ms for a day, with the detector that the kernel
//! runs, and puts in a true stall now and then, on the side.

use crate::trace::{Job, Sign, Trace, HOUR, MS, SECOND};
use nullhz_stall_host::{
    abi::{Culprit, Phase, State, PHASES},
    clock::Clock,
    deadline::{Rules, Wishes, KNOWN, RECENT},
    rank::{Change, Rank, Sight},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub const PERIOD: u64 = 10 * MS;
/// What the README promises for a sampler that is on time.
pub const BOUND: u64 = 15 * MS;
const DAY: u64 = 24 * HOUR;

pub const WISHES: Wishes = Wishes {
    deadline_ms: [0; PHASES],
    floor_ms: 0,
    warmup: 0,
};

/// How well the sampler runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampler {
    OnTime,
    /// Up to 90 ms late, one look in a hundred.
    Late,
    /// Held up for two seconds to ten minutes some ten times a day, without or with the job.
    Starved,
    Paused,
}

/// What a day has brought.
#[derive(Debug, Default)]
pub struct Day {
    pub steps: u64,
    pub suspects: u32,
    pub false_alarms: u32,
    pub gaps: u32,
    /// Stalls put in while the job was in STEP, learned: time to STALLED of a rank whose thread
    /// does anything, and of one whose thread is stopped, ns.
    pub found: Vec<(u64, u64)>,
}

/// The intervals of a phase as they were.
#[derive(Default)]
struct Past(Vec<u64>);

impl Past {
    /// The largest of the quantiles `part / whole` of the last 256, 512, ... intervals.
    fn quantile(&self, part: usize, whole: usize) -> u64 {
        let mut length = 256;
        let mut most = 0;
        loop {
            let mut last = self.0[self.0.len().saturating_sub(length)..].to_vec();
            let above = last.len() * part / whole;
            let place = last.len() - 1 - above;
            most = most.max(*last.select_nth_unstable(place).1);
            if length >= self.0.len() {
                return most;
            }
            length *= 2;
        }
    }

    /// The longest that the documented rule allows both deadlines to be: proven, stalled.
    fn rule(&self, floor: u64, late: u64, rules: &Rules) -> (u64, u64) {
        // What the sampler and the bins cannot tell apart.
        let blur = |ns: u64| ns + ns / 16 + 12 * MS + late;
        let default = rules.default_ns();
        if self.0.len() < KNOWN as usize {
            return (default, default);
        }
        let rare = blur(self.quantile(1, 1000));
        let longest = self.0.iter().max().unwrap() + PERIOD + late;
        let proven = floor.max(rare * 3 / 2).max(longest * 5 / 4);
        let mut recent = self.0[self.0.len() - RECENT..].to_vec();
        recent.sort_unstable();
        let recent = recent[RECENT / 2] + PERIOD + late;
        let typical = blur(self.quantile(1, 10)).max(recent);
        let slack = typical * u64::from(rules.slack);
        (proven, proven.max(slack.min(default)))
    }
}

pub struct Run {
    rules: Rules,
    clock: Clock,
    rank: Rank,
    registered: bool,
    sight: Sight,
    pasts: [Past; PHASES],
    /// The last sign of life, and how late the look was that saw it.
    last: u64,
    late: u64,
    /// How late a look can be, and is not told as a gap.
    latest: u64,
    warmup: u32,
    grace_until: u64,
    spoilt: bool,
    day: Day,
}

impl Run {
    fn floor(&self, phase: Phase) -> u64 {
        MS * u64::from(match phase {
            Phase::Init | Phase::Step => self.rules.floor_ms,
            Phase::CommWait => self.rules.wait_floor_ms,
            Phase::Checkpoint | Phase::Eval => self.rules.pause_floor_ms,
        })
    }

    /// The documented rule for what the job does now.
    fn rule(&self) -> (u64, u64) {
        let phase = self.rank.phase();
        let of = |phase: Phase| {
            self.pasts[phase as usize].rule(self.floor(phase), self.latest, &self.rules)
        };
        let own = of(phase);
        match phase {
            Phase::Init => (self.rules.default_ns(), self.rules.default_ns()),
            Phase::CommWait => {
                let step = of(Phase::Step);
                (own.0.max(step.0), own.1.max(step.1))
            }
            _ => own,
        }
    }

    /// From now on there is no sign of life: how long until the rank is STALLED.
    fn stall(&self, mut now: u64, thread: Culprit) -> u64 {
        let (mut clock, mut rank) = (self.clock, self.rank.clone());
        let begin = self.last.max(self.grace_until);
        loop {
            now += PERIOD;
            let mut sight = self.sight;
            if rank.wants_thread() {
                sight.thread = thread;
            }
            let look = clock.look(now);
            if rank.sample(&look, &sight, &self.rules) == Some(Change::Stalled) {
                return now.saturating_sub(begin);
            }
            assert!(
                now.saturating_sub(begin) < 2 * HOUR,
                "a stall that nobody sees"
            );
        }
    }

    fn probe(&mut self, now: u64) {
        if self.rank.state() >= State::Stalled {
            return;
        }
        let (proven, stalled) = self.rule();
        let deadline = self.rank.deadline_ns();
        let bound = BOUND + self.late;
        let any = self.stall(now, Culprit::Sleeping);
        assert!(any <= deadline + bound, "{any} after {deadline}");
        assert!(any + 5 * MS >= deadline, "{any} before {deadline}");
        assert!(
            any <= stalled + bound,
            "{any}, rule {stalled}, {:?}",
            self.rank.phase()
        );
        let stopped = self.stall(now, Culprit::Stopped);
        // A thread that is stopped later than the last sign of life is so proven later.
        let begun = now - self.last.max(self.grace_until).min(now);
        let most = proven.max(begun + proven / 4) + bound;
        assert!(
            stopped <= most,
            "{stopped}, rule {proven}, {:?}",
            self.rank.phase()
        );
        let learned = self.pasts[Phase::Step as usize].0.len() >= KNOWN as usize;
        if self.rank.phase() == Phase::Step && learned {
            self.day.found.push((any, stopped));
        }
    }

    /// A sign of life, seen by the look after it.
    fn sign(&mut self, at: u64, sign: Sign, gap: u64) {
        match sign {
            Sign::Crash => self.registered = false,
            Sign::Register => {
                self.registered = true;
                self.rank = Rank::BLANK;
                let now = self.clock.at(at);
                self.rank.begin(now, &WISHES, false, &self.rules);
                self.sight = Sight {
                    step: 0,
                    progress: 0,
                    phase: 0,
                    thread: Culprit::Unknown,
                };
                self.pasts = Default::default();
                self.warmup = self.rules.warmup;
                self.spoilt = true;
                self.grace_until = 0;
                self.last = at;
                self.late = 0;
            }
            Sign::Grace(ms) => {
                self.rank.grace(self.clock.at(at), ms);
                self.grace_until = at + u64::from(ms) * MS;
                self.spoilt = true;
            }
            Sign::Page {
                phase,
                step,
                progress,
            } => {
                let was = Phase::from_page(self.sight.phase);
                if step != self.sight.step {
                    self.warmup = self.warmup.saturating_sub(1);
                    self.day.steps += 1;
                }
                // What changes at once is one sign of life.
                if !self.spoilt && was != Phase::Init && at != self.last {
                    self.pasts[was as usize].0.push(at - self.last);
                }
                self.spoilt = self.warmup != 0;
                self.sight = Sight {
                    step,
                    progress,
                    phase: phase as u32,
                    thread: Culprit::Unknown,
                };
                self.last = at;
                self.late = gap.saturating_sub(PERIOD);
            }
        }
    }

    /// A day of `job`.
    pub fn day(job: &Job, rules: &Rules, sampler: Sampler, seed: u64) -> Day {
        let mut rng = ChaCha8Rng::seed_from_u64(!seed);
        let mut trace = Trace::new(job, seed).peekable();
        let mut run = Run {
            rules: *rules,
            clock: Clock::new(0, PERIOD),
            rank: Rank::BLANK,
            registered: false,
            sight: Sight {
                step: 0,
                progress: 0,
                phase: 0,
                thread: Culprit::Unknown,
            },
            pasts: Default::default(),
            last: 0,
            late: 0,
            latest: match sampler {
                Sampler::OnTime => 0,
                _ => 90 * MS,
            },
            warmup: 0,
            grace_until: 0,
            spoilt: true,
            day: Day::default(),
        };
        let (mut now, mut before, mut paused) = (0, 0, 0);
        let mut next_probe = rng.random_range(0..DAY / 16);
        while now < DAY {
            let late = match sampler {
                Sampler::Late if rng.random_ratio(1, 100) => rng.random_range(0..90 * MS),
                Sampler::Starved | Sampler::Paused if rng.random_ratio(1, 800_000) => {
                    rng.random_range(2 * SECOND..600 * SECOND)
                }
                _ => 0,
            };
            if sampler == Sampler::Paused {
                paused += late;
                run.grace_until += if run.grace_until > now { late } else { 0 };
                // The job's clock stood still as well.
                run.last += late;
            }
            // The next look is where it would have been.
            now = (now / PERIOD + 1) * PERIOD + late;
            while let Some((at, sign)) = trace.next_if(|(at, _)| at + paused <= now) {
                run.sign(at + paused, sign, now - before);
            }
            before = now;
            run.sight.thread = if run.rank.wants_thread() {
                Culprit::Sleeping
            } else {
                Culprit::Unknown
            };
            let look = run.clock.look(now);
            if look.late_ns.is_some() {
                run.day.gaps += 1;
                run.spoilt = true;
            }
            if !run.registered {
                continue;
            }
            match run.rank.sample(&look, &run.sight, rules) {
                Some(Change::Suspect) => run.day.suspects += 1,
                Some(Change::Stalled) => run.day.false_alarms += 1,
                _ => {}
            }
            if now >= next_probe && look.late_ns.is_none() {
                next_probe = now + rng.random_range(DAY / 64..DAY / 16);
                run.probe(now);
            }
        }
        run.day
    }
}
