// SPDX-License-Identifier: GPL-2.0
//! A made-up stall watchdog, and the waiting for answers on it.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;

/// A rank of the made-up watchdog: when it answers (ns after the request), or
/// goes, if ever.
#[derive(Clone, Copy, Debug)]
struct Player {
    rank: Rank,
    answers_after_ns: Option<u64>,
    goes_after_ns: Option<u64>,
}

impl Player {
    fn new(number: u32, answers_after_ns: Option<u64>) -> Self {
        let mut name = [0; 32];
        name[..3].copy_from_slice(b"job");
        Self {
            rank: Rank {
                rank: number,
                name,
                phase: Phase::Step as u32,
                ..Rank::ZERO
            },
            answers_after_ns,
            goes_after_ns: None,
        }
    }

    fn stalled(mut self) -> Self {
        self.rank.state = State::Stalled as u32;
        self
    }

    fn waiting(mut self) -> Self {
        self.rank.phase = Phase::CommWait as u32;
        self
    }

    fn of_job(mut self, name: &[u8; 3]) -> Self {
        self.rank.name[..3].copy_from_slice(name);
        self
    }
}

#[derive(Default)]
struct Scene {
    players: Vec<Player>,
    request: u32,
    requested_ns: u64,
    /// After so many looks somebody else asks.
    rival_after: Option<u32>,
    absent: bool,
}

#[derive(Clone, Default)]
struct Stage(Arc<Mutex<Scene>>);

impl Stage {
    fn new(players: Vec<Player>) -> Self {
        Self(Arc::new(Mutex::new(Scene {
            players,
            ..Scene::default()
        })))
    }

    fn absent() -> Self {
        let stage = Self::default();
        stage.0.lock().unwrap().absent = true;
        stage
    }

    fn requests(&self) -> u32 {
        self.0.lock().unwrap().request
    }

    fn with_rival(self, looks: u32) -> Self {
        self.0.lock().unwrap().rival_after = Some(looks);
        self
    }
}

impl Scene {
    fn due(&self, after_ns: Option<u64>) -> bool {
        after_ns.is_some_and(|after| monotonic_ns() >= self.requested_ns + after)
    }

    fn begin(&mut self) {
        self.request += 1;
        self.requested_ns = monotonic_ns();
    }

    fn count(&self) -> Checkpoint {
        let answered = |player: &&Player| self.due(player.answers_after_ns);
        let gone = |player: &&Player| !answered(player) && self.due(player.goes_after_ns);
        Checkpoint {
            request: self.request,
            asked: self.players.len() as u32,
            answered: self.players.iter().filter(answered).count() as u32,
            gone: self.players.iter().filter(gone).count() as u32,
        }
    }
}

impl Watchdog for Stage {
    fn info(&self) -> Result<Info, Error> {
        let scene = self.0.lock().unwrap();
        Ok(Info {
            max_ranks: 1024,
            ranks: scene.players.len() as u32,
            armed: 1,
            resets: 2,
            ..Info::ZERO
        })
    }

    fn request(&self) -> Result<Checkpoint, Error> {
        let mut scene = self.0.lock().unwrap();
        // As the module does: nobody is asked twice before anybody has answered.
        if scene.request == 0 || scene.count().answered > 0 {
            scene.begin();
        }
        Ok(scene.count())
    }

    fn answers(&self, request: u32) -> Result<Checkpoint, Error> {
        let mut scene = self.0.lock().unwrap();
        if let Some(looks) = scene.rival_after {
            scene.rival_after = looks.checked_sub(1);
            if looks == 0 {
                scene.begin();
            }
        }
        if request != scene.request {
            return Err(Error::Superseded(request));
        }
        Ok(scene.count())
    }

    fn ranks(&self) -> Result<Vec<Rank>, Error> {
        let scene = self.0.lock().unwrap();
        let there = scene.players.iter();
        let there = there.filter(|player| !scene.due(player.goes_after_ns));
        let row = |player: &Player| {
            let mut rank = player.rank;
            if scene.due(player.answers_after_ns) {
                rank.checkpoint_ack = scene.request;
            }
            rank
        };
        Ok(there.map(row).collect())
    }
}

impl Watchdogs for Stage {
    fn open(&self) -> Result<Box<dyn Watchdog>, Error> {
        if self.0.lock().unwrap().absent {
            return Err(Error::NoDevice("/dev/nullhz-stall".into()));
        }
        Ok(Box::new(self.clone()))
    }
}

const MS: u64 = 1_000_000;

fn play(stage: &Stage, budget_ns: u64) -> Option<Asked> {
    ask(stage, monotonic_ns() + budget_ns).unwrap()
}

#[test]
fn the_last_answer_ends_the_waiting() {
    let players = (0..4).map(|n| Player::new(n, Some(u64::from(n) * 20 * MS)));
    let asked = play(&Stage::new(players.collect()), 10_000 * MS).unwrap();
    assert_eq!(asked.end, End::Answered);
    assert_eq!((asked.answers.asked, asked.answers.answered), (4, 4));
    let took = asked.ended_ns - asked.asked_ns;
    assert!((60 * MS..5_000 * MS).contains(&took), "{took}");
}

#[test]
fn the_budget_ends_the_waiting() {
    let stage = Stage::new(vec![Player::new(0, Some(0)), Player::new(1, None)]);
    let asked = play(&stage, 100 * MS).unwrap();
    assert_eq!(asked.end, End::OutOfTime);
    assert_eq!((asked.answers.answered, owing(&asked.answers)), (1, 1));
    let took = asked.ended_ns - asked.asked_ns;
    assert!((100 * MS..5_000 * MS).contains(&took), "{took}");
}

#[test]
fn without_a_budget_it_asks_and_does_not_wait() {
    let stage = Stage::new(vec![Player::new(0, None)]);
    assert_eq!(ask(&stage, 0).unwrap().unwrap().end, End::OutOfTime);
    assert_eq!(stage.requests(), 1);
}

#[test]
fn nobody_waits_for_those_that_are_gone_or_stalled() {
    let mut gone = Player::new(0, None);
    gone.goes_after_ns = Some(30 * MS);
    let asked = play(&Stage::new(vec![gone]), 10_000 * MS).unwrap();
    assert_eq!((asked.end, asked.answers.gone), (End::Answered, 1));

    let players = vec![Player::new(0, Some(0)), Player::new(1, None).stalled()];
    let asked = play(&Stage::new(players), 10_000 * MS).unwrap();
    assert_eq!((asked.end, owing(&asked.answers)), (End::Stalled, 1));
}

#[test]
fn one_that_waits_for_a_stalled_peer_is_not_waited_for() {
    let stalled = Player::new(1, None).stalled();
    let peer = Player::new(0, None).waiting();
    let asked = play(&Stage::new(vec![peer, stalled]), 10_000 * MS).unwrap();
    assert_eq!(asked.end, End::Stalled);

    // It waits for its own job, whose ranks are all alive.
    let other = Player::new(0, Some(100 * MS)).waiting().of_job(b"two");
    let asked = play(&Stage::new(vec![other, stalled]), 10_000 * MS).unwrap();
    assert_eq!((asked.end, asked.answers.answered), (End::Stalled, 1));
    let took = asked.ended_ns - asked.asked_ns;
    assert!(took >= 100 * MS, "{took}");
}

#[test]
fn a_rival_request_is_waited_for_instead() {
    let players = (0..3).map(|n| Player::new(n, Some(40 * MS)));
    let stage = Stage::new(players.collect()).with_rival(5);
    let asked = play(&stage, 10_000 * MS).unwrap();
    assert_eq!((asked.end, asked.answers.request), (End::Answered, 2));
}

#[test]
fn without_ranks_or_watchdog_there_is_nothing_to_wait_for() {
    assert_eq!(play(&Stage::default(), 10_000 * MS), None);
    let err = ask(&Stage::absent(), u64::MAX).unwrap_err();
    assert!(matches!(err, Error::NoDevice(_)), "{err}");
}

fn any_player() -> impl Strategy<Value = Player> {
    let times = || prop::option::of(0..60 * MS);
    (times(), times(), 0u32..5, 0u32..6, prop::bool::ANY).prop_map(
        |(answers, goes, state, phase, other_job)| {
            let mut player = Player::new(0, answers);
            player.goes_after_ns = goes;
            player.rank.state = state;
            player.rank.phase = phase;
            if other_job {
                player = player.of_job(b"two");
            }
            player
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Whatever the ranks do: it ends in time, and it goes on before its time
    /// only when there is nothing to wait for.
    #[test]
    fn waiting_is_bounded_and_not_cut_short(
        players in prop::collection::vec(any_player(), 1..6),
        budget in 0..40 * MS,
    ) {
        let stage = Stage::new(players.clone());
        let begun_ns = monotonic_ns();
        let asked = ask(&stage, begun_ns + budget).unwrap().unwrap();
        let took = asked.ended_ns - begun_ns;
        prop_assert!(took < budget + 1_000 * MS, "{}", took);
        match asked.end {
            End::Answered => prop_assert_eq!(owing(&asked.answers), 0),
            End::OutOfTime => prop_assert!(took >= budget),
            End::Stalled => {
                let since = |after: Option<u64>| after.is_some_and(|after| after <= took);
                let owes = |player: &&Player| {
                    !since(player.answers_after_ns) && !since(player.goes_after_ns)
                };
                for player in players.iter().filter(owes) {
                    let stuck = is_stalled(&player.rank)
                        || (player.rank.phase == Phase::CommWait as u32
                            && players.iter().any(|other| {
                                other.rank.name == player.rank.name && is_stalled(&other.rank)
                            }));
                    prop_assert!(stuck, "{:?}", player);
                }
            }
        }
    }

    #[test]
    fn sums_that_do_not_fit_do_not_hang(asked: u32, answered: u32, gone: u32) {
        let answers = Checkpoint { request: 1, asked, answered, gone };
        prop_assert!(owing(&answers) <= asked);
    }
}
