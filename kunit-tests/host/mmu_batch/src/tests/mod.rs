// SPDX-License-Identifier: GPL-2.0

mod gather;
mod model;
mod spans;
mod turns;
mod window;
