/* SPDX-License-Identifier: GPL-2.0 */
/*
 * nullhz_mmu_batch: batched invalidation of secondary TLBs, for drivers in C.
 * Drivers in Rust use drivers/include/nullhz/mmu_batch.rs. Symbols are
 * EXPORT_SYMBOL_GPL of nullhz_mmu_batch.ko; drivers/mmu_batch/porting.md shows
 * how a driver moves over.
 *
 * A *device* is a secondary TLB. A *space* is the memory of one process as the
 * device sees it. An *interval* is a range of a space of which the driver
 * hears when the CPU's page tables change. An *unmap* is one that the driver
 * itself wants.
 *
 * What is zapped (in the driver's own page table) is flushed (out of the TLB)
 * later, but before anybody can tell: the memory management does not go on,
 * and the pages and addresses of an unmap are not given back, until a flush
 * that began after the zap was acknowledged. Until then, all zaps of all
 * threads and spaces of a device share that flush.
 *
 * Locks, from the outside in: what the memory management holds when it
 * notifies, the space's lock, locks of the driver that zap() takes. flush()
 * and reset() are called with none of these two, but from the same places:
 * locks that they take must never be held around an allocation that may
 * reclaim, nor around a call of a function of this file.
 */
#ifndef _NULLHZ_MMU_BATCH_H
#define _NULLHZ_MMU_BATCH_H

#include <linux/mm_types.h>
#include <linux/module.h>
#include <linux/types.h>

struct mmu_interval_notifier;
struct nullhz_mmu_batch_device;
struct nullhz_mmu_batch_interval;
struct nullhz_mmu_batch_space;

/* Bytes of a device's name, with the terminating 0. */
#define NULLHZ_MMU_BATCH_NAME_SIZE	32
/* The most spans that a flush is ever given. */
#define NULLHZ_MMU_BATCH_MAX_SPANS	64

/**
 * struct nullhz_mmu_batch_span - addresses to flush
 * @start: first byte
 * @end: byte behind the last one
 * @tag: what the driver has called the space
 */
struct nullhz_mmu_batch_span {
	u64 start;
	u64 end;
	u64 tag;
};

/**
 * struct nullhz_mmu_batch_device_ops - what a driver does for its device
 * @owner: THIS_MODULE; it cannot be unloaded while there are spaces
 * @flush: throws the translations of @spans out of the TLB; all of all spaces
 *	when @count is 0. Spans are sorted by tag and start, and do not touch.
 *	Returns 0 after the device has acknowledged it, and no walk of a page
 *	table that was under way is going to fill the TLB any more; a negative
 *	errno when it does not answer.
 *	Called in process context, one at a time, may sleep; must not allocate
 *	memory that has to be reclaimed (GFP_KERNEL).
 * @reset: makes all translations unusable after @flush has failed: stops the
 *	device, cuts it off, or resets it. Returns 0 when it does not reach
 *	memory any more through what it knew; else it is asked again, less and
 *	less often. Context as @flush.
 */
struct nullhz_mmu_batch_device_ops {
	struct module *owner;
	int (*flush)(void *driver, const struct nullhz_mmu_batch_span *spans, u32 count);
	int (*reset)(void *driver);
};

/**
 * struct nullhz_mmu_batch_event - a change of the CPU's page tables
 * @start: first byte of what of it is in the interval
 * @end: byte behind the last one
 * @kind: why: enum mmu_notifier_event
 * @blockable: whether the notifier may sleep
 * @pad: 0
 * @state: of the library
 */
struct nullhz_mmu_batch_event {
	u64 start;
	u64 end;
	u32 kind;
	u8 blockable;
	u8 pad[3];
	void *state;
};

/**
 * struct nullhz_mmu_batch_interval_ops - what a driver does for its intervals
 * @zap: removes what the driver's page table has between the event's start and
 *	end, and returns whether anything was there. When nothing was, nothing is
 *	flushed. Called with the space's lock held, may sleep; must not allocate
 *	memory that has to be reclaimed. Never called for an event that must not
 *	block.
 * @live: whether the driver's page table has anything between the event's start
 *	and end. For events that must not block, when the space's lock was free:
 *	if nothing is there, the memory management goes on, otherwise it tries
 *	again later. Must not sleep, and changes nothing. NULL: there always is.
 * @flushed: what @zap has removed is out of the TLB: unmap DMA, drop what was
 *	kept for it. May be called for an event for which @zap has found nothing.
 *	Called without the space's lock, may sleep, must not allocate memory that
 *	has to be reclaimed. Called in the second pass, or in the first one, if
 *	the event hits no other notifier. NULL: nothing to do, which is much
 *	cheaper: then intervals that do not overlap share a notifier
 *	(tunables/notifier_mib).
 * @start: NULL; for the Rust API
 * @finish: NULL; for the Rust API
 */
struct nullhz_mmu_batch_interval_ops {
	bool (*zap)(void *driver, const struct nullhz_mmu_batch_event *event);
	bool (*live)(void *driver, const struct nullhz_mmu_batch_event *event);
	void (*flushed)(void *driver, const struct nullhz_mmu_batch_event *event);
	bool (*start)(void *driver, struct nullhz_mmu_batch_event *event);
	void (*finish)(void *driver, struct nullhz_mmu_batch_event *event);
};

/**
 * struct nullhz_mmu_batch_unmap - an unmap that the driver wants
 * @start: first byte, in the space
 * @end: byte behind the last one
 * @pages: how many pages it gives back; for counters and the size of a batch
 * @zap: removes it from the driver's page table, and returns whether anything
 *	was there. Called by nullhz_mmu_batch_defer(), with the space's lock held.
 * @release: gives back the pages and the addresses, and may free the unmap. No
 *	translation of them is in the TLB any more. Process context, may sleep
 *	and allocate; must not call functions of this file. Called by a thread of
 *	the library, or by whoever defers, drains or destroys a space of the device.
 *
 * Embedded in what the driver needs for it. The driver holds the pages (pinned)
 * and the addresses (not handed out again) until @release.
 */
struct nullhz_mmu_batch_unmap {
	u64 start;
	u64 end;
	u64 pages;
	bool (*zap)(struct nullhz_mmu_batch_unmap *unmap);
	void (*release)(struct nullhz_mmu_batch_unmap *unmap);
};

/**
 * enum nullhz_mmu_batch_cause - why deferred unmaps must be finished
 * @NULLHZ_MMU_BATCH_SUBMIT: work is about to be given to the device that must
 *	not see what was unmapped
 * @NULLHZ_MMU_BATCH_REUSE: the addresses or the pages are wanted
 */
enum nullhz_mmu_batch_cause {
	NULLHZ_MMU_BATCH_SUBMIT = 0,
	NULLHZ_MMU_BATCH_REUSE = 1,
};

/**
 * nullhz_mmu_batch_device_register() - announce a secondary TLB
 * @name: of its folder in sysfs, /sys/devices/faux/nullhz_mmu_batch.<name>/;
 *	letters, digits, "-", "_" and ".", at most 31; copied
 * @ops: stays valid until the device is unregistered
 * @driver: handed to @ops
 * @pgmap_owner: events of migrations of this owner are the driver's own, and
 *	not delivered (&struct dev_pagemap.owner); NULL: none
 *
 * Context: process, may sleep.
 * Return: a device; ERR_PTR(-EINVAL) for a bad name or missing ops, -EEXIST if
 * there is a device of that name, -ENOMEM.
 */
struct nullhz_mmu_batch_device *
nullhz_mmu_batch_device_register(const char *name,
				 const struct nullhz_mmu_batch_device_ops *ops,
				 void *driver, const void *pgmap_owner);

/**
 * nullhz_mmu_batch_device_unregister() - withdraw a secondary TLB
 * @device: from nullhz_mmu_batch_device_register(); NULL or an ERR_PTR is
 *	ignored
 *
 * Waits for its spaces to be destroyed; one that never is, is a bug of the
 * driver that the log tells. After it no function of the driver is called.
 *
 * Context: process, may sleep.
 */
void nullhz_mmu_batch_device_unregister(struct nullhz_mmu_batch_device *device);

/**
 * nullhz_mmu_batch_space_create() - let a device see the memory of a process
 * @device: the device
 * @mm: the memory; the caller keeps it alive during the call. The space does
 *	not keep it alive.
 * @tag: what spans of this space are to be called (PASID, ASID, VMID)
 *
 * Context: process, may sleep.
 * Return: a space; ERR_PTR(-EINVAL), -ENODEV if the driver is being unloaded,
 * -ENOMEM.
 */
struct nullhz_mmu_batch_space *
nullhz_mmu_batch_space_create(struct nullhz_mmu_batch_device *device,
			      struct mm_struct *mm, u64 tag);

/**
 * nullhz_mmu_batch_space_destroy() - the end of a space
 * @space: all its intervals were removed; NULL or an ERR_PTR is ignored
 *
 * All its unmaps are released when it returns.
 *
 * Context: process, may sleep; not from a function of the ops, and without any
 * lock that those, what is notified or a release() for this device take.
 */
void nullhz_mmu_batch_space_destroy(struct nullhz_mmu_batch_space *space);

/**
 * nullhz_mmu_batch_space_lock() - keep zaps of a space out
 * @space: the space
 *
 * A mutex. Held while translations are put into the driver's page table, after
 * mmu_interval_read_retry() was asked under it. Memory that has to be reclaimed
 * must not be allocated under it.
 *
 * Context: process, may sleep; not from @zap, @live or @start, which have it.
 */
void nullhz_mmu_batch_space_lock(struct nullhz_mmu_batch_space *space);

/**
 * nullhz_mmu_batch_space_unlock() - the end of nullhz_mmu_batch_space_lock()
 * @space: the space; the caller has its lock
 */
void nullhz_mmu_batch_space_unlock(struct nullhz_mmu_batch_space *space);

/**
 * nullhz_mmu_batch_interval_insert() - hear of changes of a range
 * @space: the space
 * @start: first byte
 * @length: bytes, not 0
 * @ops: stays valid until the interval is removed
 * @driver: handed to @ops
 *
 * Context: process, may sleep; the space's memory is still in use (mmget()),
 * its mmap_lock is not held by the caller.
 * Return: an interval; ERR_PTR(-EINVAL) for a bad range or missing ops, -ESRCH
 * if the process is gone, -EINTR if a signal is pending for the first interval
 * of a process, -ENOMEM.
 */
struct nullhz_mmu_batch_interval *
nullhz_mmu_batch_interval_insert(struct nullhz_mmu_batch_space *space,
				 u64 start, u64 length,
				 const struct nullhz_mmu_batch_interval_ops *ops,
				 void *driver);

/**
 * nullhz_mmu_batch_interval_remove() - hear of a range no more
 * @interval: the interval; nothing is put into its range of the driver's page
 *	table any more. NULL or an ERR_PTR is ignored
 *
 * Has what is left zapped, as if the process had ended, and waits for the flush
 * and for events that are under way. To remove many intervals, unmap the whole
 * space first (nullhz_mmu_batch_defer(), nullhz_mmu_batch_drain()): then there
 * is one flush.
 *
 * Context: process, may sleep; not from a function of the ops, and without any
 * lock that those or what is notified take.
 */
void nullhz_mmu_batch_interval_remove(struct nullhz_mmu_batch_interval *interval);

/**
 * nullhz_mmu_batch_interval_notifier() - what the kernel calls an interval
 * @interval: the interval
 *
 * For &struct hmm_range.notifier, mmu_interval_read_begin() and
 * mmu_interval_read_retry(). The sequence is set by the library. It is not for
 * mmu_interval_notifier_remove(), nor for anything else.
 *
 * Context: any.
 * Return: the notifier; valid until the interval is removed.
 */
struct mmu_interval_notifier *
nullhz_mmu_batch_interval_notifier(struct nullhz_mmu_batch_interval *interval);

/**
 * nullhz_mmu_batch_defer() - unmap now, flush soon
 * @space: the space
 * @unmap: the unmap; stays in place until its release() is called
 *
 * Zaps at once. The flush is shared with what is unmapped in the next
 * tunables/gather_window_us, or comes earlier: when there is much to give back,
 * with any other flush, and with nullhz_mmu_batch_drain().
 *
 * Only for what the driver itself wants to have unmapped, and has pinned: a
 * notifier must not return before the flush, so that there is no way to defer
 * it.
 *
 * Context: process, may sleep, not reclaim; without the space's lock or any that
 * a release() for this device takes, which may be called, that of @unmap too,
 * before it returns; not from a function of the ops.
 * Return: 0; -EINVAL for an empty or reversed range or missing functions, and
 * then nothing was done.
 */
int nullhz_mmu_batch_defer(struct nullhz_mmu_batch_space *space,
			   struct nullhz_mmu_batch_unmap *unmap);

/**
 * nullhz_mmu_batch_drain() - finish what was deferred
 * @space: the space
 * @cause: why; for the counters
 *
 * When it returns, all unmaps that were deferred before it was called, of all
 * spaces of the device, have been flushed and released.
 *
 * Context: process, may sleep, not reclaim; without the space's lock or any that
 * a release() for this device takes; not from a function of the ops.
 */
void nullhz_mmu_batch_drain(struct nullhz_mmu_batch_space *space,
			    enum nullhz_mmu_batch_cause cause);

/*
 * For mmu_batch.rs, whose types see to it that they are called in this order:
 * start() locks, zaps, and says so; finish() waits, unless the library is to.
 */

/* The space's lock; false if the event must not block and it is not free. */
bool nullhz_mmu_batch_event_lock(struct nullhz_mmu_batch_event *event);
/* Unlocks; nothing was zapped. Only for an event that must not block. */
void nullhz_mmu_batch_event_unlock(struct nullhz_mmu_batch_event *event);
/*
 * Takes a ticket if anything was live, or is still in flight, and unlocks.
 * Returns whether there is a ticket.
 */
bool nullhz_mmu_batch_event_zapped(struct nullhz_mmu_batch_event *event, bool live);
/* Whether anything zapped before may still be in the TLB; with the lock held. */
bool nullhz_mmu_batch_event_in_flight(struct nullhz_mmu_batch_event *event);
/* Waits until the event's ticket is finished. */
void nullhz_mmu_batch_event_wait(struct nullhz_mmu_batch_event *event);

#endif /* _NULLHZ_MMU_BATCH_H */
