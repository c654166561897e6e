// SPDX-License-Identifier: GPL-2.0
//! What a rank does to its page. The page is a file in memory, the device is not there: that is
//! tested in the virtual machine.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{memfd_create, MemfdFlags};

use super::*;
use crate::abi::{self, PAGE_SIZE};

/// The kernel's view of a page.
struct Kernel(File);

impl Kernel {
    fn page(&self) -> abi::Page {
        let mut bytes = [0; abi::Page::SIZE];
        self.0.read_exact_at(&mut bytes, 0).unwrap();
        abi::Page::from_bytes(&bytes)
    }

    fn write(&self, page: abi::Page) {
        self.0.write_all_at(&page.to_bytes(), 0).unwrap();
    }
}

fn rank() -> (Rank, Kernel) {
    let file = File::from(memfd_create("page", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(PAGE_SIZE as u64).unwrap();
    let page = Page::map(file.as_fd()).unwrap();
    let device = Some(file.try_clone().unwrap().into());
    (Rank { page, device }, Kernel(file))
}

#[test]
fn stores_reach_their_place() {
    let (rank, kernel) = rank();
    assert!(rank.is_watched());
    rank.beat(0x0123_4567_89ab_cdef);
    rank.progress(u64::MAX);
    rank.set_phase(Phase::CommWait);
    let expected = abi::Page {
        step: 0x0123_4567_89ab_cdef,
        progress: u64::MAX,
        phase: Phase::CommWait as u32,
        ..abi::Page::ZERO
    };
    assert_eq!(kernel.page(), expected);
    rank.beat(0);
    assert_eq!(kernel.page().step, 0);
}

#[test]
fn request_is_wanted_until_it_is_answered() {
    let (rank, kernel) = rank();
    assert_eq!(rank.checkpoint_wanted(), None);
    kernel.write(abi::Page {
        checkpoint_request: 41,
        ..abi::Page::ZERO
    });
    let request = rank.checkpoint_wanted().unwrap();
    assert_eq!(request.number(), 41);
    assert_eq!(rank.checkpoint_wanted(), Some(request));
    rank.checkpoint_done(request);
    assert_eq!(kernel.page().checkpoint_ack, 41);
    assert_eq!(rank.checkpoint_wanted(), None);
}

#[test]
fn request_during_a_checkpoint_is_another_one() {
    let (rank, kernel) = rank();
    let page = |checkpoint_request| abi::Page {
        checkpoint_request,
        ..abi::Page::ZERO
    };
    kernel.write(page(u32::MAX));
    let first = rank.checkpoint_wanted().unwrap();
    kernel.write(page(1));
    rank.checkpoint_done(first);
    assert_eq!(rank.checkpoint_wanted().unwrap().number(), 1);
}

#[test]
fn kernel_is_heard() {
    let (rank, kernel) = rank();
    assert_eq!(
        (rank.state(), rank.incident(), rank.deadline()),
        (Some(State::Ok), None, Duration::ZERO)
    );
    kernel.write(abi::Page {
        state: State::Stalled as u32,
        incident: 12,
        deadline_ns: 1_500_000_000,
        ..abi::Page::ZERO
    });
    assert_eq!(rank.state(), Some(State::Stalled));
    assert_eq!(rank.incident(), Some(12));
    assert_eq!(rank.deadline(), Duration::from_millis(1500));
    kernel.write(abi::Page {
        state: 77,
        ..abi::Page::ZERO
    });
    assert_eq!(rank.state(), None);
}

#[test]
fn phases_nest() {
    let (rank, kernel) = rank();
    rank.set_phase(Phase::Step);
    {
        let _evaluation = rank.enter(Phase::Eval);
        let checkpoint = rank.enter(Phase::Checkpoint);
        assert_eq!(kernel.page().phase, Phase::Checkpoint as u32);
        drop(checkpoint);
        assert_eq!(kernel.page().phase, Phase::Eval as u32);
    }
    assert_eq!(rank.phase(), Phase::Step);
}

#[test]
fn phase_ends_on_the_way_out_of_an_error() {
    fn fails(rank: &Rank) -> Result<(), Error> {
        let _checkpoint = rank.enter(Phase::Checkpoint);
        Err(Error::TooManyRanks)
    }
    let (rank, _kernel) = rank();
    rank.set_phase(Phase::Step);
    fails(&rank).unwrap_err();
    assert_eq!(rank.phase(), Phase::Step);
}

#[test]
fn page_is_not_inherited() {
    let (rank, _kernel) = rank();
    let address = format!("{:x}-", &raw const *rank.page.words() as usize);
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (_, ours) = smaps.split_once(&address).unwrap();
    let flags = ours.lines().find_map(|line| line.strip_prefix("VmFlags: "));
    assert!(flags.unwrap().split(' ').any(|flag| flag == "dc"));
}

#[test]
fn unwatched_rank_does_nothing() {
    let rank = Rank::unwatched().unwrap();
    assert!(!rank.is_watched());
    rank.beat(1);
    rank.progress(1);
    rank.set_phase(Phase::Step);
    assert_eq!(rank.checkpoint_wanted(), None);
    assert_eq!(rank.state(), Some(State::Ok));
    rank.grace(Duration::from_secs(1)).unwrap();
    assert!(matches!(rank.grace(Duration::MAX), Err(Error::TooLong(_))));
    rank.leave().unwrap();
}

#[test]
fn missing_device_is_named() {
    let options = Options::new(0, "x").device("/nonexistent/nullhz-stall");
    let Err(error) = Rank::register(&options) else {
        panic!("registered with nothing");
    };
    assert!(
        matches!(&error, Error::NoDevice(path) if path == Path::new("/nonexistent/nullhz-stall"))
    );
    assert!(error
        .to_string()
        .ends_with("is the module nullhz_stall loaded?"));
    assert!(!Rank::register_if_present(&options).unwrap().is_watched());
}

#[test]
fn other_files_are_not_taken_for_the_device() {
    for path in ["/dev/null", "/proc/self/comm"] {
        let options = Options::new(0, "x").device(path);
        for result in [
            Rank::register(&options),
            Rank::register_if_present(&options),
        ] {
            assert!(matches!(result, Err(Error::NotTheWatchdog(_))), "{path}");
        }
    }
    let options = Options::new(0, "x").device("/");
    assert!(matches!(Rank::register(&options), Err(Error::Open { .. })));
}

#[test]
fn bad_options_are_told_before_the_device_is_opened() {
    let options = Options::new(0, "").device("/nonexistent");
    assert!(matches!(Rank::register(&options), Err(Error::Name(_))));
}

#[test]
fn failed_calls_are_told() {
    // An ordinary file knows none of the calls.
    let (rank, _kernel) = rank();
    let error = rank.grace(Duration::from_secs(1)).unwrap_err();
    assert!(matches!(
        error,
        Error::Call {
            call: "grace",
            errno: Errno::NOTTY
        }
    ));
    let error = rank.leave().unwrap_err();
    assert!(matches!(error, Error::Call { call: "leave", .. }));
}
