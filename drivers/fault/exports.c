// SPDX-License-Identifier: GPL-2.0
/* The symbols for fault sources; ffi.rs has the functions. */

#include <linux/build_bug.h>
#include <linux/export.h>
#include <linux/stddef.h>
#include <nullhz/fault.h>

/* What abi.rs asserts of its own copy. */
static_assert(sizeof(struct nullhz_fault_event) == NULLHZ_FAULT_EVENT_SIZE);
static_assert(offsetof(struct nullhz_fault_event, seq) == 8);
static_assert(offsetof(struct nullhz_fault_event, boot_id) == 32);
static_assert(offsetof(struct nullhz_fault_event, source) == 48);
static_assert(offsetof(struct nullhz_fault_event, incident) == 64);
static_assert(offsetof(struct nullhz_fault_event, payload) == 88);
static_assert(sizeof_field(struct nullhz_fault_event, payload) == NULLHZ_FAULT_PAYLOAD_SIZE);
static_assert(sizeof(struct nullhz_fault_bus) == 40);
static_assert(sizeof(struct nullhz_fault_mce) == 144);
static_assert(sizeof(struct nullhz_fault_aer) == 40);
static_assert(sizeof(struct nullhz_fault_info) == 64);
static_assert(sizeof(struct nullhz_fault_filter) == 16);
static_assert(sizeof(struct nullhz_fault_seek) == 16);
static_assert(sizeof(struct nullhz_fault_ack) == 24);
static_assert(sizeof(struct nullhz_fault_incident) == 72);
/* What ffi.rs and drivers/include/nullhz/fault.rs declare. */
static_assert(sizeof(struct nullhz_fault_report) == 48);
static_assert(offsetof(struct nullhz_fault_report, payload) == 40);

EXPORT_SYMBOL_GPL(nullhz_fault_source_register);
EXPORT_SYMBOL_GPL(nullhz_fault_source_unregister);
EXPORT_SYMBOL_GPL(nullhz_fault_report);
EXPORT_SYMBOL_GPL(nullhz_fault_report_incident);
EXPORT_SYMBOL_GPL(nullhz_fault_incident_get);
EXPORT_SYMBOL_GPL(nullhz_fault_acknowledged);
EXPORT_SYMBOL_GPL(nullhz_fault_persist);
EXPORT_SYMBOL_GPL(nullhz_fault_withdraw);
