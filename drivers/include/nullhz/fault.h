/* SPDX-License-Identifier: GPL-2.0 */
/*
 * nullhz fault bus, for fault sources in the kernel (C and, through
 * drivers/include/nullhz/fault.rs, Rust). Symbols are EXPORT_SYMBOL_GPL of
 * nullhz_fault.ko.
 */
#ifndef _NULLHZ_FAULT_H
#define _NULLHZ_FAULT_H

#include <linux/types.h>
#include <uapi/nullhz/fault.h>

struct nullhz_fault_source;

/**
 * struct nullhz_fault_report - what a source says about one fault
 * @mono_ns: CLOCK_MONOTONIC of the fault, 0: now
 * @real_ns: CLOCK_REALTIME of the fault, 0: now
 * @kind: one of the source's kinds
 * @level: NULLHZ_FAULT_WATCH, _DEGRADING, _IMMINENT or _FATAL
 * @flags: NULLHZ_FAULT_F_BOOT, _SUMMARY, _INJECTED, or 0
 * @cpu: CPU, -1: none or unknown
 * @node: NUMA node, -1: derived from @cpu
 * @count: occurrences that it stands for: 1, or more with _SUMMARY
 * @payload_len: bytes at @payload, at most NULLHZ_FAULT_PAYLOAD_SIZE
 * @pad: 0
 * @payload: by source; may be NULL when @payload_len is 0
 */
struct nullhz_fault_report {
	u64 mono_ns;
	u64 real_ns;
	u16 kind;
	u8 level;
	u8 flags;
	s32 cpu;
	s32 node;
	u32 count;
	u32 payload_len;
	u32 pad;
	const void *payload;
};

/**
 * nullhz_fault_source_register() - announce a fault source
 * @id: NULLHZ_FAULT_SRC_*, not NULLHZ_FAULT_SRC_BUS
 * @name: for sysfs and logs; 1 to 31 printable ASCII characters without a space;
 *	copied
 *
 * Context: process, may sleep.
 * Return: a handle; ERR_PTR(-EINVAL) for a bad id or name, -EBUSY when the id
 * is registered already, -ENOMEM.
 */
struct nullhz_fault_source *nullhz_fault_source_register(u32 id, const char *name);

/**
 * nullhz_fault_source_unregister() - withdraw a source
 * @source: from nullhz_fault_source_register(); NULL or an ERR_PTR is ignored
 *
 * What it reported stays readable. The caller makes sure that no
 * nullhz_fault_report() with @source is running or will start.
 * Context: process, may sleep.
 */
void nullhz_fault_source_unregister(struct nullhz_fault_source *source);

/**
 * nullhz_fault_report() - put one fault on the bus
 * @source: the reporting source
 * @report: the fault; copied
 *
 * Never blocks, allocates or loses silently: readers that are too slow are
 * told how many records they missed. Keeps nothing over a reset, whatever the
 * level: see nullhz_fault_persist().
 *
 * Context: process, softirq or hardirq, also with interrupts off and under
 * raw spinlocks; not NMI, and not with a scheduler lock held (it wakes a
 * thread).
 * Return: 0; -EINVAL for a bad level, flags, CPU, node, count or payload.
 */
int nullhz_fault_report(struct nullhz_fault_source *source,
			const struct nullhz_fault_report *report);

/**
 * nullhz_fault_report_incident() - put one fault on the bus, and learn its incident
 * @source: the reporting source
 * @report: the fault; copied
 * @incident: set to the incident that the event opened or joined, 0: none
 *
 * As nullhz_fault_report() otherwise.
 */
int nullhz_fault_report_incident(struct nullhz_fault_source *source,
				 const struct nullhz_fault_report *report, u64 *incident);

/**
 * nullhz_fault_incident_get() - look at an incident
 * @source: any registered source
 * @id: the incident
 * @incident: filled in
 *
 * Context: as nullhz_fault_report().
 * Return: 0; -EINVAL for a bad argument; -ENOENT for an incident that was never
 * opened, or is older than the incident table.
 */
int nullhz_fault_incident_get(struct nullhz_fault_source *source, u64 id,
			      struct nullhz_fault_incident *incident);

/**
 * nullhz_fault_acknowledged() - is there somebody who acknowledges incidents?
 * @source: any registered source
 *
 * Context: as nullhz_fault_report().
 * Return: 1 if an incident of any source has been acknowledged since the bus
 * was loaded, however late; else 0; -EINVAL for a bad source.
 */
int nullhz_fault_acknowledged(struct nullhz_fault_source *source);

/**
 * nullhz_fault_persist() - record the last words of a dying node
 * @source: the reporting source
 * @report: the fault; its level is taken as NULLHZ_FAULT_FATAL
 *
 * Writes the record, with the last incident and snapshot id, to every store
 * that survives a reset (reserved RAM, ERST); the next boot's bus delivers it
 * with NULLHZ_FAULT_F_PREVIOUS_BOOT. Reserved RAM has 16 slots, of which a
 * quarter is for NULLHZ_FAULT_SRC_MCE alone; ERST takes one record at a time.
 * Prints a line to the kernel log after that.
 *
 * Context: any, NMI and #MC included.
 * Return: 0; -EINVAL as above; -ENODEV when there is no store; -EIO when every
 * store failed, was full or in use by another CPU.
 */
int nullhz_fault_persist(struct nullhz_fault_source *source,
			 const struct nullhz_fault_report *report);

/**
 * nullhz_fault_withdraw() - the node lives after all
 * @source: the reporting source
 *
 * Removes from the stores what @source has kept with nullhz_fault_persist()
 * since the bus was loaded.
 *
 * Context: process, may sleep; firmware takes its time.
 * Return: 0; -EINVAL for a bad source; the last error of a store.
 */
int nullhz_fault_withdraw(struct nullhz_fault_source *source);

#endif /* _NULLHZ_FAULT_H */
