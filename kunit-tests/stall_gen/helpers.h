/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _NULLHZ_STALL_GEN_HELPERS_H
#define _NULLHZ_STALL_GEN_HELPERS_H

void nullhz_stall_gen_preempt_disable(void);
void nullhz_stall_gen_preempt_enable(void);

#endif /* _NULLHZ_STALL_GEN_HELPERS_H */
