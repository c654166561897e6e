// SPDX-License-Identifier: GPL-2.0
//! One rank: what a training script is in a large job.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Instant;

use anyhow::{bail, ensure, Context, Result};
use nix::sched::{sched_setaffinity, CpuSet};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::unistd::{getppid, Pid};
use nullhz_stall::{Phase, Rank};
use serde_json::json;

use crate::adam::Adam;
use crate::checkpoint::{self, Job, Manifest, State};
use crate::data::{self, Batch};
use crate::heart;
use crate::launcher;
use crate::model::Model;
use crate::options::RunOptions;
use crate::ring::Ring;

/// What a rank tells the others at each step.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Vote {
    step: u64,
    loss: f32,
    /// The checkpoint request that it has not answered yet, 0: none.
    request: u32,
    /// It was told to end.
    stop: bool,
}

impl Vote {
    fn to_bytes(self) -> [u8; 17] {
        let mut bytes = [0; 17];
        bytes[..8].copy_from_slice(&self.step.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.loss.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.request.to_ne_bytes());
        bytes[16] = self.stop.into();
        bytes
    }

    fn from_bytes(bytes: &[u8; 17]) -> Self {
        let [step @ .., l0, l1, l2, l3, r0, r1, r2, r3, stop] = *bytes;
        Self {
            step: u64::from_ne_bytes(step),
            loss: f32::from_ne_bytes([l0, l1, l2, l3]),
            request: u32::from_ne_bytes([r0, r1, r2, r3]),
            stop: stop != 0,
        }
    }
}

/// A rank at work.
struct Worker<'a> {
    options: &'a RunOptions,
    rank: u32,
    job: Job,
    ring: Ring,
    heart: Rank,
    model: Model,
    state: State,
    signals: SignalFd,
    /// Of rank 0.
    log: Option<File>,
    loss: f64,
}

/// Trains as rank `rank` of a job that process `launcher` started, with its
/// links as standard input and output.
///
/// # Errors
///
/// Whatever ends the training early.
pub fn run(options: &RunOptions, rank: u32, launcher: i32) -> Result<()> {
    // Without its launcher nobody would tell what became of it.
    set_pdeathsig(Signal::SIGKILL)?;
    ensure!(
        getppid() == Pid::from_raw(launcher),
        "the launcher, process {launcher}, is gone"
    );
    let signals = launcher::termination_signals()?;
    if let Some(cpus) = &options.cpus {
        let cpu = cpus.0[rank as usize % cpus.0.len()];
        pin(cpu).with_context(|| format!("pin rank {rank} to CPU {cpu}"))?;
    }
    let heart = heart::register(&options.watch, rank)?;
    let ring = match options.ranks {
        1 => Ring::alone(),
        ranks => Ring::new(
            rank as usize,
            ranks as usize,
            io::stdin().as_fd().try_clone_to_owned()?,
            io::stdout().as_fd().try_clone_to_owned()?,
        )
        .context("links to the other ranks")?,
    };
    let model = Model::new(&options.shape, options.seed)?;
    let first = State {
        parameters: model.parameters()?,
        adam: Adam::new(model.size()),
    };
    let log = options.log.as_ref().filter(|_| rank == 0);
    let open = |path| File::options().create(true).append(true).open(path);
    let log = log.map(open).transpose().context("--log")?;
    let mut worker = Worker {
        options,
        rank,
        job: options.job(),
        ring,
        heart,
        model,
        state: first,
        signals,
        log,
        loss: f64::NAN,
    };
    worker.resume()?;
    worker.train()?;
    Ok(worker.heart.leave()?)
}

fn pin(cpu: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

impl Worker<'_> {
    /// Goes on from the newest whole checkpoint, when there is one.
    fn resume(&mut self) -> Result<()> {
        let (rank, dir) = (self.rank, &self.options.dir);
        let broken = |entry: &checkpoint::Entry, err: &anyhow::Error| {
            if rank == 0 {
                eprintln!("trainer: warning: {entry} is passed over: {err:#}");
            }
        };
        let found = checkpoint::newest(dir, &self.model, &self.job, broken)?;
        if let Some((Manifest { step, loss, .. }, state)) = found {
            self.model.set_parameters(&state.parameters)?;
            self.state = state;
            self.loss = loss;
            self.say(&format!("goes on from step {step}, loss {loss:.4}"));
            self.write_log(json!({"event": "resumed", "step": step, "loss": loss}))?;
        } else {
            let size = self.model.size();
            self.say(&format!(
                "begins: {size} parameters, {} ranks",
                self.job.ranks
            ));
            self.write_log(json!({"event": "begun", "parameters": size}))?;
        }
        // Nobody writes or deletes before all have read; and all have read the
        // same, or they would not be in the same step.
        self.heart.set_phase(Phase::CommWait);
        self.vote(false)?;
        self.heart.beat(self.state.adam.steps);
        if self.rank == 0 {
            checkpoint::clean(dir, self.options.keep, self.state.adam.steps)?;
        }
        Ok(())
    }

    fn train(&mut self) -> Result<()> {
        let held_out = data::held_out(self.job.seed, 32, self.job.shape.context);
        let is_due = |every: u64, step: u64| every != 0 && step.is_multiple_of(every);
        let mut saved = self.state.adam.steps;
        let mut begun = Instant::now();
        while self.state.adam.steps < self.options.steps {
            let votes = self.step()?;
            let step = self.state.adam.steps;
            let ms = begun.elapsed().as_secs_f64() * 1e3;
            begun = Instant::now();
            let loss = self.loss;
            self.write_log(json!({"event": "step", "step": step, "loss": loss, "ms": ms}))?;
            if is_due(self.options.report_every, step) {
                self.say(&format!("step {step}, loss {loss:.4}, {ms:.1} ms"));
            }
            let asked = votes.iter().any(|vote| vote.request != 0);
            let stop = votes.iter().any(|vote| vote.stop);
            let ends = stop || step == self.options.steps;
            if asked || ends || is_due(self.options.checkpoint_every, step) {
                self.checkpoint(&votes)?;
                saved = step;
            }
            if is_due(self.options.eval_every, step) {
                self.evaluate(&held_out)?;
            }
            if stop {
                self.say(&format!("ends at step {step}, as it was told"));
                break;
            }
        }
        let step = self.state.adam.steps;
        ensure!(saved == step, "step {step} is in no checkpoint");
        self.write_log(json!({"event": "ended", "step": step}))
    }

    /// One step of training; the votes of all ranks.
    fn step(&mut self) -> Result<Vec<Vote>> {
        let step = self.state.adam.steps + 1;
        self.heart.set_phase(Phase::Step);
        if self.options.stall.is_due(self.rank, step) {
            eprintln!(
                "trainer: rank {} stalls in step {step}, as asked: {:?}",
                self.rank, self.options.stall.stall_kind
            );
            self.options.stall.stall()?;
            eprintln!("trainer: rank {} goes on", self.rank);
        }
        let Job {
            seed, batch, rate, ..
        } = self.job;
        let batch = data::batch(seed, self.rank, step, batch, self.job.shape.context);
        let loss = self.model.loss(&batch)?;
        let mut gradient = self.model.gradient(&loss)?;
        self.state.adam.steps = step;
        self.loss = loss.to_scalar::<f32>()?.into();

        self.heart.set_phase(Phase::CommWait);
        let votes = self.vote(self.told_to_stop()?)?;
        self.ring.all_reduce(&mut gradient)?;
        self.heart.set_phase(Phase::Step);

        let ranks = self.ring.ranks() as f32;
        gradient.iter_mut().for_each(|value| *value /= ranks);
        self.state.adam.steps = step - 1;
        self.state
            .adam
            .step(&mut self.state.parameters, &gradient, rate);
        self.model.set_parameters(&self.state.parameters)?;
        let losses = votes.iter().map(|vote| f64::from(vote.loss));
        self.loss = losses.sum::<f64>() / votes.len() as f64;
        ensure!(
            self.loss.is_finite(),
            "the loss of step {step} is {}",
            self.loss
        );
        self.heart.beat(step);
        Ok(votes)
    }

    /// Tells the others where this rank is and what it wants, and hears them.
    fn vote(&mut self, stop: bool) -> Result<Vec<Vote>> {
        let wanted = self.heart.checkpoint_wanted();
        let mine = Vote {
            step: self.state.adam.steps,
            loss: self.loss as f32,
            request: wanted.map_or(0, |request| request.number()),
            stop,
        };
        let votes = self.ring.all_gather(mine.to_bytes())?;
        let votes: Vec<_> = votes.iter().map(Vote::from_bytes).collect();
        for (rank, vote) in votes.iter().enumerate() {
            if vote.step != mine.step {
                bail!("rank {rank} is in step {}, not {}", vote.step, mine.step);
            }
        }
        Ok(votes)
    }

    fn told_to_stop(&self) -> Result<bool> {
        Ok(self.signals.read_signal()?.is_some())
    }

    /// Rank 0 writes, and then all answer those who asked for it.
    fn checkpoint(&mut self, votes: &[Vote]) -> Result<()> {
        let (dir, step) = (&self.options.dir, self.state.adam.steps);
        let requests = votes.iter().map(|vote| vote.request);
        let requests: Vec<_> = requests.filter(|request| *request != 0).collect();
        if self.rank == 0 {
            self.heart.set_phase(Phase::Checkpoint);
            let begun = Instant::now();
            let bytes = checkpoint::write(dir, &self.model, &self.state, self.loss, &self.job)?;
            let ms = begun.elapsed().as_secs_f64() * 1e3;
            let asked = requests.first();
            let why = asked.map_or_else(String::new, |request| format!(", request {request}"));
            self.say(&format!(
                "checkpoint of step {step}: {bytes} bytes in {ms:.1} ms{why}"
            ));
            self.write_log(json!({
                "event": "checkpoint", "step": step, "bytes": bytes, "ms": ms, "request": asked
            }))?;
        }
        self.heart.set_phase(Phase::CommWait);
        self.vote(false)?;
        // A request may have reached only some of the ranks when they voted;
        // one that is newer than the vote is not answered by this checkpoint.
        let wanted = self.heart.checkpoint_wanted();
        if let Some(request) = wanted.filter(|request| requests.contains(&request.number())) {
            self.heart.checkpoint_done(request);
        }
        self.heart.set_phase(Phase::Step);
        if self.rank == 0 {
            checkpoint::clean(dir, self.options.keep, step)?;
        }
        Ok(())
    }

    fn evaluate(&mut self, held_out: &Batch) -> Result<()> {
        self.heart.set_phase(Phase::Eval);
        if self.rank == 0 {
            let step = self.state.adam.steps;
            let (loss, right) = self.model.evaluate(held_out)?;
            self.say(&format!(
                "evaluation at step {step}: loss {loss:.4}, {:.1} % of the digits right",
                100.0 * right
            ));
            self.write_log(json!({"event": "eval", "step": step, "loss": loss, "right": right}))?;
        }
        self.heart.set_phase(Phase::Step);
        Ok(())
    }

    fn say(&self, text: &str) {
        if self.rank == 0 {
            eprintln!("trainer: {text}");
        }
    }

    fn write_log(&mut self, value: serde_json::Value) -> Result<()> {
        match &mut self.log {
            Some(log) => log
                .write_all(format!("{value}\n").as_bytes())
                .context("--log"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vote_comes_back() {
        let vote = Vote {
            step: u64::MAX - 1,
            loss: 1.25,
            request: 0x0102_0304,
            stop: true,
        };
        assert_eq!(Vote::from_bytes(&vote.to_bytes()), vote);
    }
}
