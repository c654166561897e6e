/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _NULLHZ_FAULT_GEN_HELPERS_H
#define _NULLHZ_FAULT_GEN_HELPERS_H

#include <linux/types.h>

void nullhz_gen_bh_disable(void);
void nullhz_gen_bh_enable(void);
void nullhz_gen_printk(u32 source, u32 kind, u64 number);

#endif /* _NULLHZ_FAULT_GEN_HELPERS_H */
