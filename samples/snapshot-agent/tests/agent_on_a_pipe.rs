// SPDX-License-Identifier: GPL-2.0
//! The real agent on a made-up bus: records come through standard input, the
//! incidents are files in a directory, and so are the ranks of a made-up stall
//! watchdog. It can be killed and started again like
//! the real one, because nothing of the bus is inside it.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::unistd::read;
use nullhz_agent::abi::{state, Event, Incident, Info, EVENT_SIZE};
use nullhz_agent::agent::{self, Options};
use nullhz_agent::bus::{Bus, BATCH};
use nullhz_agent::ranks::{Watchdog, Watchdogs};
use nullhz_stall::abi as stall;
use nullhz_stall::Error;

#[derive(Parser)]
struct Args {
    /// `incident-<id>` holds a record of the ABI, `ack-<id>` an acknowledgement.
    #[arg(long)]
    bus: PathBuf,

    /// `ranks` holds their number, `request` the newest request's; an answer to
    /// it is a file `answer-<request>-<rank>`, a stalled rank one `stalled-<rank>`.
    #[arg(long)]
    ranks: PathBuf,

    #[command(flatten)]
    options: Options,
}

struct Pipe {
    stdin: std::io::Stdin,
    dir: PathBuf,
}

impl Pipe {
    fn ids(&self) -> Vec<u64> {
        let entries = fs::read_dir(&self.dir).unwrap();
        let id = |name: &str| name.strip_prefix("incident-")?.parse().ok();
        entries
            .filter_map(|entry| id(entry.unwrap().file_name().to_str().unwrap()))
            .collect()
    }
}

impl Bus for Pipe {
    fn fd(&self) -> BorrowedFd<'_> {
        self.stdin.as_fd()
    }

    fn read(&self, events: &mut Vec<Event>) -> nix::Result<()> {
        let mut bytes = [0; BATCH * EVENT_SIZE];
        events.clear();
        let len = match read(&self.stdin, &mut bytes) {
            Ok(0) => return Err(Errno::ENODEV),
            Ok(len) => len,
            Err(Errno::EAGAIN) => 0,
            Err(errno) => return Err(errno),
        };
        // The test writes whole records, fewer bytes at once than PIPE_BUF.
        let (records, rest) = bytes[..len].as_chunks();
        assert!(rest.is_empty());
        events.extend(records.iter().map(Event::from_bytes));
        Ok(())
    }

    fn info(&self) -> nix::Result<Info> {
        let ids = self.ids();
        let open = |id: &&u64| self.incident(**id).unwrap().state != state::ACKED;
        Ok(Info {
            abi_version: 1,
            event_size: 256,
            open_incidents: ids.iter().filter(open).count() as u32,
            head_seq: u64::MAX,
            last_incident: ids.iter().max().copied().unwrap_or(0),
            boot_id: *b"made-up boot id.",
            ..Info::ZERO
        })
    }

    fn incident(&self, id: u64) -> nix::Result<Incident> {
        let bytes = match fs::read(self.dir.join(format!("incident-{id}"))) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == ErrorKind::NotFound => return Err(Errno::ENOENT),
            Err(err) => panic!("{err}"),
        };
        let mut incident = Incident::from_prefix(&bytes).unwrap();
        if let Ok(text) = fs::read_to_string(self.dir.join(format!("ack-{id}"))) {
            incident.state = state::ACKED;
            match text.parse() {
                Ok(snapshot_id) => incident.snapshot_id = snapshot_id,
                Err(_) => incident.result = -(Errno::EIO as i32),
            }
        }
        Ok(incident)
    }

    fn ack(&self, id: u64, result: Result<u64, Errno>) -> nix::Result<()> {
        self.incident(id)?;
        let path = self.dir.join(format!("ack-{id}"));
        if path.exists() {
            return Err(Errno::EALREADY);
        }
        let text = match result {
            Ok(snapshot_id) => snapshot_id.to_string(),
            Err(errno) => format!("{errno:?}"),
        };
        let temporary = self.dir.join("new");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, path).unwrap();
        Ok(())
    }
}

#[derive(Clone)]
struct Ranks(PathBuf);

impl Ranks {
    fn number(&self, name: &str) -> u32 {
        let text = fs::read_to_string(self.0.join(name)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    fn count(&self, request: u32) -> stall::Checkpoint {
        let asked = self.number("ranks");
        stall::Checkpoint {
            request,
            asked,
            answered: (0..asked)
                .filter(|rank| self.has_answered(request, *rank))
                .count() as u32,
            gone: 0,
        }
    }

    fn has_answered(&self, request: u32, rank: u32) -> bool {
        self.0.join(format!("answer-{request}-{rank}")).exists()
    }
}

impl Watchdogs for Ranks {
    fn open(&self) -> Result<Box<dyn Watchdog>, Error> {
        match self.0.join("ranks").exists() {
            true => Ok(Box::new(self.clone())),
            false => Err(Error::NoDevice(self.0.clone())),
        }
    }
}

impl Watchdog for Ranks {
    fn info(&self) -> Result<stall::Info, Error> {
        Ok(stall::Info {
            ranks: self.number("ranks"),
            armed: 1,
            ..stall::Info::ZERO
        })
    }

    fn request(&self) -> Result<stall::Checkpoint, Error> {
        let request = self.number("request") + 1;
        let temporary = self.0.join("new");
        fs::write(&temporary, request.to_string()).unwrap();
        fs::rename(temporary, self.0.join("request")).unwrap();
        Ok(self.count(request))
    }

    fn answers(&self, request: u32) -> Result<stall::Checkpoint, Error> {
        Ok(self.count(request))
    }

    fn ranks(&self) -> Result<Vec<stall::Rank>, Error> {
        let request = self.number("request");
        let rank = |rank: u32| {
            let stalled = self.0.join(format!("stalled-{rank}")).exists();
            stall::Rank {
                rank,
                phase: stall::Phase::Step as u32,
                state: if stalled {
                    stall::State::Stalled
                } else {
                    stall::State::Ok
                } as u32,
                checkpoint_ack: if self.has_answered(request, rank) {
                    request
                } else {
                    0
                },
                ..stall::Rank::ZERO
            }
        };
        Ok((0..self.number("ranks")).map(rank).collect())
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let flags = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
    fcntl(std::io::stdin(), flags).expect("standard input is open");
    let bus = Pipe {
        stdin: std::io::stdin(),
        dir: args.bus,
    };
    match agent::run(bus, Arc::new(Ranks(args.ranks)), &args.options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("{err}");
            ExitCode::from(err.exit_code())
        }
    }
}
