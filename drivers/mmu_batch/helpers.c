// SPDX-License-Identifier: GPL-2.0
/* What Rust has no abstraction for. */

#include <linux/module.h>

#include "glue.h"

/* Any context. False if @module is being unloaded; NULL is the kernel itself. */
bool nullhz_mmu_batch_module_get(struct module *module)
{
	return try_module_get(module);
}

void nullhz_mmu_batch_module_put(struct module *module)
{
	module_put(module);
}
