# SPDX-License-Identifier: GPL-2.0
# What people type; 'make help' lists it. The work is done by scripts/, and by
# the kernel's own build system, which starts in Kbuild.

O		?= build
FLAVOUR		?= nullhz

variables	:= C CF CLIPPY FLAVOUR INSTALL_MOD_DIR INSTALL_MOD_PATH INSTALL_MOD_STRIP \
		   KDIR KERNEL_SRC LLVM NULLHZ_CACHE O RUSTC UPDATE V W
given		:= $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v))
unknown		:= $(filter-out $(variables) MAKEOVERRIDES MAKEFLAGS,$(given))
ifneq ($(unknown),)
$(error $(firstword $(unknown))= means nothing here: 'make help' lists the variables)
endif
ifeq ($(filter nullhz test debug,$(FLAVOUR)),)
$(error FLAVOUR=$(FLAVOUR): one of nullhz, test, debug is needed)
endif

# The kernel's make must not take our O= and KDIR= for its own.
MAKEOVERRIDES	:=
export NULLHZ_BUILD := $(abspath $(O))
export FLAVOUR

# For the kernel's build, which heeds these only on its command line.
kbuild_args	:= $(foreach v,C CF CLIPPY INSTALL_MOD_DIR INSTALL_MOD_STRIP V W,$(if $($v),$v='$($v)'))
# Against somebody else's kernel nothing is installed, fetched or built but the modules.
prepared	:= $(if $(KDIR),,packages)

.PHONY: all modules modules_install rust-analyzer kernel samples image
all: modules

modules: $(prepared)
	@scripts/modules modules $(kbuild_args)

modules_install: modules
	@scripts/modules modules_install $(kbuild_args)

rust-analyzer: $(prepared)
	@scripts/modules rust-analyzer $(kbuild_args)

kernel: packages
	@scripts/kernel/build $(FLAVOUR)

samples: packages
	@scripts/samples

.PHONY: setup packages
setup:
	@scripts/setup

packages:
	@scripts/setup packages

.PHONY: clean prune-cache
clean:
	@rm -rf $(addprefix $(NULLHZ_BUILD)/,cargo image install kernel log modules) rust-project.json

prune-cache:
	@scripts/kernel/prune
