// SPDX-License-Identifier: GPL-2.0

//! Training jobs: when their ranks show signs of life. Simulated, but for the steps of one.

use crate::recorded;
use nullhz_stall_host::abi::Phase;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, LogNormal};
use std::{collections::VecDeque, iter::Cycle, vec::IntoIter};

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;
pub const HOUR: u64 = 3600 * SECOND;

/// How the length of the sequences changes.
#[derive(Clone, Copy, Debug)]
pub enum Lengths {
    Same,
    /// Doubles so many times, at random moments.
    Doubles(u32),
    /// Three steps in ten are three times as long.
    Mixed,
}

/// How slow steps come about: ten times as long as others.
#[derive(Clone, Copy, Debug)]
pub enum Slow {
    Never,
    /// One step in so many.
    OneIn(u32),
    /// Once, after so long.
    Once(u64),
}

/// How evaluation and checkpoints are announced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pauses {
    None,
    /// By their phases.
    Phases,
    /// By grace.
    Grace,
}

#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// A step's median.
    pub step_ns: u64,
    /// Sigma of a step's logarithm.
    pub jitter: f64,
    pub slow: Slow,
    /// One step in so many takes two to five times as long, 0: none.
    pub hiccups: u32,
    pub lengths: Lengths,
    /// How many times as long steps are after a day.
    pub drift: f64,
    pub pauses: Pauses,
    /// Steps end in COMM_WAIT, for peers that have slow steps and checkpoints of their own.
    pub peers: bool,
    /// Compiles anew, in INIT, about so often, ns, 0: never.
    pub compiles: u64,
    /// Crashes and starts again about so often, ns, 0: never.
    pub restarts: u64,
    /// Steps are as recorded, over and over, in units of a hundredth of `step_ns` instead of a ms.
    pub recorded: bool,
}

impl Job {
    pub const PLAIN: Job = Job {
        step_ns: SECOND,
        jitter: 0.03,
        slow: Slow::Never,
        hiccups: 0,
        lengths: Lengths::Same,
        drift: 1.0,
        pauses: Pauses::None,
        peers: false,
        compiles: 0,
        restarts: 0,
        recorded: false,
    };
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sign {
    Register,
    /// The process is gone, and its registration with it.
    Crash,
    Page {
        phase: Phase,
        step: u64,
        progress: u64,
    },
    Grace(u32),
}

/// A job's signs of life, in order of time.
pub struct Trace {
    job: Job,
    rng: ChaCha8Rng,
    now: u64,
    step: u64,
    progress: u64,
    signs: VecDeque<(u64, Sign)>,
    next_eval: u64,
    next_checkpoint: u64,
    next_peer_checkpoint: u64,
    next_compile: u64,
    next_restart: u64,
    slow_done: bool,
    doublings: Vec<u64>,
    length: f64,
    /// Steps since the length changed.
    settled: u32,
    recorded: Cycle<IntoIter<u64>>,
}

impl Trace {
    pub fn new(job: &Job, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut doublings = match job.lengths {
            Lengths::Doubles(times) => (0..times)
                .map(|_| rng.random_range(HOUR..23 * HOUR))
                .collect(),
            _ => Vec::new(),
        };
        doublings.sort_by_key(|at| std::cmp::Reverse(*at));
        let mut trace = Trace {
            job: *job,
            rng,
            now: 3 * MS,
            step: 0,
            progress: 0,
            signs: VecDeque::new(),
            next_eval: 0,
            next_checkpoint: 0,
            next_peer_checkpoint: 0,
            next_compile: 0,
            next_restart: 0,
            slow_done: false,
            doublings,
            length: 1.0,
            settled: 0,
            recorded: recorded::steps().into_iter().cycle(),
        };
        trace.next_restart = trace.after(job.restarts);
        trace.start();
        trace
    }

    /// About `ns` from now, never for 0.
    fn after(&mut self, ns: u64) -> u64 {
        if ns == 0 {
            return u64::MAX;
        }
        let wait: f64 = Exp1.sample(&mut self.rng);
        self.now + (ns as f64 * (0.2 + wait)) as u64
    }

    fn around(&mut self, ns: u64, sigma: f64) -> u64 {
        let factor: f64 = LogNormal::new(0.0, sigma).unwrap().sample(&mut self.rng);
        (ns as f64 * factor) as u64
    }

    fn show(&mut self, phase: Phase) {
        let sign = Sign::Page {
            phase,
            step: self.step,
            progress: self.progress,
        };
        self.signs.push_back((self.now, sign));
    }

    /// Registers, loads, compiles; the first steps are slow.
    fn start(&mut self) {
        self.signs.push_back((self.now, Sign::Register));
        self.now += self.around(90 * SECOND, 0.4).min(500 * SECOND);
        self.step = self.rng.random_range(0..1000);
        self.show(Phase::Step);
        for n in 0..8 {
            let times = [40, 12, 6, 3, 2, 2, 1, 1][n];
            self.now += self.around(times * self.job.step_ns, 0.2).min(400 * SECOND);
            self.step += 1;
            self.show(Phase::Step);
        }
        self.next_eval = self.after(HOUR / 4);
        self.next_checkpoint = self.after(HOUR / 2);
        self.next_peer_checkpoint = self.after(HOUR / 2);
        self.next_compile = self.after(self.job.compiles);
    }

    fn step_time(&mut self) -> u64 {
        if self.job.recorded {
            return self.recorded.next().unwrap() * self.job.step_ns / 100;
        }
        if self.doublings.last().is_some_and(|at| *at <= self.now) {
            self.doublings.pop();
            self.length *= 2.0;
            self.settled = 0;
        }
        self.settled = self.settled.saturating_add(1);
        let drift = 1.0 + (self.job.drift - 1.0) * (self.now as f64 / (24 * HOUR) as f64);
        let mut factor = self.length * drift;
        if matches!(self.job.lengths, Lengths::Mixed) && self.rng.random_ratio(3, 10) {
            factor *= 3.0;
        }
        // A new length is known after four intervals; that a slow step is among these four is not
        // covered by the rule (deadline.rs), and left out.
        let slow = self.settled > 4
            && match self.job.slow {
                Slow::Never => false,
                Slow::OneIn(steps) => self.rng.random_ratio(1, steps),
                Slow::Once(at) => at <= self.now && !self.slow_done,
            };
        if slow {
            self.slow_done = true;
            factor *= 10.0;
        } else if self.job.hiccups != 0 && self.rng.random_ratio(1, self.job.hiccups) {
            factor *= self.rng.random_range(2.0..5.0);
        }
        self.around((self.job.step_ns as f64 * factor) as u64, self.job.jitter)
    }

    fn step(&mut self) {
        self.now += self.step_time();
        if self.job.peers {
            self.show(Phase::CommWait);
            let slow = self.rng.random_ratio(1, 2_000);
            self.now += if self.now >= self.next_peer_checkpoint {
                self.next_peer_checkpoint = self.after(HOUR / 2);
                self.rng.random_range(10 * SECOND..110 * SECOND)
            } else if slow {
                self.around(10 * self.job.step_ns, self.job.jitter)
            } else {
                self.around(self.job.step_ns / 10, 0.6)
            };
        }
        self.step += 1;
        self.show(Phase::Step);
    }

    /// An evaluation, a checkpoint.
    fn pause(&mut self, phase: Phase, ns: u64, sigma: f64) {
        let ns = self.around(ns, sigma);
        match self.job.pauses {
            Pauses::None => {}
            Pauses::Phases => {
                self.show(phase);
                // Half of the evaluations show progress.
                if phase == Phase::Eval && self.rng.random() {
                    for _ in 0..4 {
                        self.now += ns / 4;
                        self.progress += 1;
                        self.show(phase);
                    }
                } else {
                    self.now += ns;
                }
                self.show(Phase::Step);
            }
            Pauses::Grace => {
                let ms = (2 * ns / MS) as u32;
                self.signs.push_back((self.now, Sign::Grace(ms)));
                self.now += ns;
                self.signs.push_back((self.now, Sign::Grace(0)));
            }
        }
    }
}

impl Iterator for Trace {
    type Item = (u64, Sign);

    fn next(&mut self) -> Option<Self::Item> {
        while self.signs.is_empty() {
            if self.now >= self.next_restart {
                self.next_restart = self.after(self.job.restarts);
                self.signs.push_back((self.now, Sign::Crash));
                self.now += self.rng.random_range(20 * SECOND..300 * SECOND);
                self.start();
            } else if self.now >= self.next_compile {
                self.next_compile = self.after(self.job.compiles);
                self.show(Phase::Init);
                self.now += self.around(60 * SECOND, 0.3);
                self.show(Phase::Step);
            } else if self.now >= self.next_eval {
                self.next_eval = self.after(HOUR / 4);
                self.pause(Phase::Eval, 45 * SECOND, 0.2);
            } else if self.now >= self.next_checkpoint {
                self.next_checkpoint = self.after(HOUR / 2);
                self.pause(Phase::Checkpoint, 20 * SECOND, 0.4);
            }
            self.step();
        }
        self.signs.pop_front()
    }
}
