/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _NULLHZ_MCE_GEN_HELPERS_H
#define _NULLHZ_MCE_GEN_HELPERS_H

#include <linux/types.h>

u64 nullhz_mce_gen_mono_ns(void);
u64 nullhz_mce_gen_real_s(void);

#endif /* _NULLHZ_MCE_GEN_HELPERS_H */
