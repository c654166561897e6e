// SPDX-License-Identifier: GPL-2.0

use kernel::prelude::*;

#[kunit_tests(nullhz_mmu_batch_combining)]
mod tests {
    use crate::combine::{bucket, Caller, BUCKETS};
    use crate::machine::{Machine, PAGES};
    use crate::spans::MAX;
    use kernel::{
        cpu::{nr_cpu_ids, CpuId},
        kthread::{CpuThread, Handler, Next, RtThread},
        prelude::*,
        sync::{
            atomic::{Acquire, Atomic, Relaxed, Release},
            Arc,
            Completion, //
        },
    };

    const ROUNDS: usize = 100;

    /// A thread that invalidates a page of its own, again and again.
    #[pin_data]
    struct Invalidator {
        machine: Arc<Machine>,
        page: usize,
        caller: Caller,
        rounds: Atomic<u64>,
        #[pin]
        done: Completion,
    }

    impl Handler for Invalidator {
        fn run(&self) -> Next {
            if self.rounds.load(Relaxed) >= ROUNDS as u64 {
                self.done.complete_all();
                return Next::UntilWoken;
            }
            self.machine.churn(self.page, self.caller);
            self.rounds.add(1u64, Relaxed);
            Next::Again
        }
    }

    /// A thread that is the device, as long as there are others.
    struct Accessor {
        machine: Arc<Machine>,
        ended: Atomic<u64>,
    }

    impl Handler for Accessor {
        fn run(&self) -> Next {
            if self.ended.load(Acquire) > 0 {
                return Next::UntilWoken;
            }
            for n in 0..1000 {
                self.machine.access(n % PAGES);
            }
            Next::Again
        }
    }

    fn cpus() -> impl Iterator<Item = CpuId> {
        (0..nr_cpu_ids())
            .filter_map(CpuId::from_u32)
            .filter(|cpu| cpu.is_online())
            .cycle()
    }

    fn invalidator(
        machine: &Arc<Machine>,
        page: usize,
        caller: Caller,
    ) -> Result<Arc<Invalidator>> {
        let init = pin_init!(Invalidator {
            machine: machine.clone(),
            page,
            caller,
            rounds: Atomic::new(0),
            done <- Completion::new(),
        });
        Arc::pin_init(init, GFP_KERNEL)
    }

    /// Threads that invalidate, ordinary ones and one in real time, and the device.
    fn run(machine: impl PinInit<Machine>) -> Result<Arc<Machine>> {
        let machine = Arc::pin_init(machine, GFP_KERNEL)?;
        let accessor = Arc::new(
            Accessor {
                machine: machine.clone(),
                ended: Atomic::new(0),
            },
            GFP_KERNEL,
        )?;
        let mut cpus = cpus();
        let mut cpu = || cpus.next().ok_or(ENODEV);
        let device = CpuThread::new(c"kunit_device", cpu()?, accessor.clone())?;
        let urgent = invalidator(&machine, 0, Caller::RealTime)?;
        let mut ordinary = KVec::new();
        let mut threads = KVec::new();
        for page in 1..PAGES {
            let invalidator = invalidator(&machine, page, Caller::Patient)?;
            let thread = CpuThread::new(c"kunit_invalidate", cpu()?, invalidator.clone())?;
            threads.push(thread, GFP_KERNEL)?;
            ordinary.push(invalidator, GFP_KERNEL)?;
        }
        let real_time = RtThread::new(c"kunit_urgent", 50, urgent.clone())?;
        urgent.done.wait_for_completion();
        for invalidator in &ordinary {
            invalidator.done.wait_for_completion();
        }
        accessor.ended.store(1, Release);
        drop((real_time, threads, device));
        Ok(machine)
    }

    /// Violations, tickets that were finished, and whether the leaders were as many as the flushes,
    /// and the device has done anything at all.
    fn summary(machine: &Machine) -> (u64, u64, bool, bool) {
        let seen = &machine.seen;
        (
            seen.violations.load(Relaxed),
            seen.tickets.load(Relaxed),
            seen.led.load(Relaxed) == seen.flushes.load(Relaxed),
            seen.accesses.load(Relaxed) > 0,
        )
    }

    /// No page was used that was not to be, and each zap was finished once.
    const RIGHT: (u64, u64, bool, bool) = (0, (ROUNDS * PAGES) as u64, true, true);

    #[test]
    fn callers_share_flushes() -> Result {
        let machine = run(Machine::new(MAX, 0, 0))?;
        assert_eq!(summary(&machine), RIGHT);
        let seen = &machine.seen;
        assert!(seen.flushes.load(Relaxed) < seen.tickets.load(Relaxed));
        assert_eq!(seen.full.load(Relaxed), 0);
        assert_eq!(seen.resets.load(Relaxed), 0);
        Ok(())
    }

    #[test]
    fn a_window_and_few_spans() -> Result {
        let machine = run(Machine::new(1, 50_000, 0))?;
        assert_eq!(summary(&machine), RIGHT);
        assert!(machine.seen.full.load(Relaxed) > 0);
        Ok(())
    }

    #[test]
    fn a_device_that_has_to_be_reset() -> Result {
        // Neither the first flush is answered nor two resets after it.
        let machine = run(Machine::new(MAX, 0, 3))?;
        assert_eq!(summary(&machine), RIGHT);
        assert_eq!(machine.seen.resets.load(Relaxed), 3);
        Ok(())
    }

    #[test]
    fn classes_of_tickets_per_flush() {
        for (tickets, class) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (20_480, 14)] {
            assert_eq!(bucket(tickets), class);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
