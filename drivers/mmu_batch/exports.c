// SPDX-License-Identifier: GPL-2.0
/* The symbols for drivers; exports.rs has the functions. */

#include <linux/build_bug.h>
#include <linux/export.h>
#include <linux/mmu_notifier.h>
#include <linux/stddef.h>
#include <nullhz/mmu_batch.h>

/* What abi.rs and drivers/include/nullhz/mmu_batch.rs declare. */
static_assert(sizeof(struct nullhz_mmu_batch_span) == 24);
static_assert(offsetof(struct nullhz_mmu_batch_span, tag) == 16);
static_assert(sizeof(struct nullhz_mmu_batch_device_ops) == 24);
static_assert(offsetof(struct nullhz_mmu_batch_device_ops, reset) == 16);
static_assert(sizeof(struct nullhz_mmu_batch_event) == 32);
static_assert(offsetof(struct nullhz_mmu_batch_event, kind) == 16);
static_assert(offsetof(struct nullhz_mmu_batch_event, blockable) == 20);
static_assert(offsetof(struct nullhz_mmu_batch_event, state) == 24);
static_assert(sizeof(struct nullhz_mmu_batch_interval_ops) == 40);
static_assert(offsetof(struct nullhz_mmu_batch_interval_ops, finish) == 32);
static_assert(sizeof(struct nullhz_mmu_batch_unmap) == 40);
static_assert(offsetof(struct nullhz_mmu_batch_unmap, release) == 32);
/* kind_of() in interval.rs. */
static_assert(MMU_NOTIFY_UNMAP == 0);
static_assert(MMU_NOTIFY_CLEAR == 1);
static_assert(MMU_NOTIFY_PROTECTION_VMA == 2);
static_assert(MMU_NOTIFY_PROTECTION_PAGE == 3);
static_assert(MMU_NOTIFY_SOFT_DIRTY == 4);
static_assert(MMU_NOTIFY_RELEASE == 5);
static_assert(MMU_NOTIFY_MIGRATE == 6);
static_assert(MMU_NOTIFY_EXCLUSIVE == 7);

EXPORT_SYMBOL_GPL(nullhz_mmu_batch_device_register);
EXPORT_SYMBOL_GPL(nullhz_mmu_batch_device_unregister);
EXPORT_SYMBOL_GPL(nullhz_mmu_batch_space_create);
EXPORT_SYMBOL_GPL(nullhz_mmu_batch_space_destroy);
EXPORT_SYMBOL_GPL(nullhz_mmu_batch_space_lock);
EXPORT_SYMBOL_GPL(nullhz_mmu_batch_space_unlock);
EXPORT_SYMBOL_GPL(nullhz_mmu_batch_interval_insert);
EXPORT_SYMBOL_GPL(nullhz_mmu_batch_interval_remove);
EXPORT_SYMBOL_GPL(nullhz_mmu_batch_interval_notifier);
EXPORT_SYMBOL_GPL(nullhz_mmu_batch_defer);
EXPORT_SYMBOL_GPL(nullhz_mmu_batch_drain);
EXPORT_SYMBOL_GPL(nullhz_mmu_batch_event_lock);
EXPORT_SYMBOL_GPL(nullhz_mmu_batch_event_unlock);
EXPORT_SYMBOL_GPL(nullhz_mmu_batch_event_zapped);
EXPORT_SYMBOL_GPL(nullhz_mmu_batch_event_in_flight);
EXPORT_SYMBOL_GPL(nullhz_mmu_batch_event_wait);
