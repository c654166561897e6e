# SPDX-License-Identifier: GPL-2.0
# What people type; 'make help' lists it. The work is done by scripts/, and by
# the kernel's own build system, which starts in Kbuild.

O		?= build
FLAVOUR		?= nullhz

variables	:= C CF CLIPPY FLAVOUR INSTALL_MOD_DIR INSTALL_MOD_PATH INSTALL_MOD_STRIP \
		   KDIR KERNEL_SRC LLVM MINUTES NULLHZ_CACHE O RUSTC SEED UPDATE V W
given		:= $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v))
unknown		:= $(filter-out $(variables) MAKEOVERRIDES MAKEFLAGS,$(given))
ifneq ($(unknown),)
$(error $(firstword $(unknown))= means nothing here: 'make help' lists the variables)
endif
ifeq ($(filter nullhz test debug,$(FLAVOUR)),)
$(error FLAVOUR=$(FLAVOUR): one of nullhz, test, debug is needed)
endif
ifneq ($(words $(O)),1)
$(error O=$(O): the name of a folder is needed, without blanks)
endif

# The kernel's make must not take our O= and KDIR= for its own.
MAKEOVERRIDES	:=
export NULLHZ_BUILD := $(abspath $(O))
export FLAVOUR

# For the kernel's build, which heeds these only on its command line.
kbuild_args	:= $(foreach v,C CF CLIPPY INSTALL_MOD_DIR INSTALL_MOD_STRIP V W,$(if $($v),$v='$($v)'))
# Against somebody else's kernel nothing is installed, fetched or built but the modules.
prepared	:= $(if $(KDIR),,packages)

.PHONY: all modules modules_install rust-analyzer kernel samples
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

# A node of flavour $(1) for the virtual machine: kernel, modules, programs, image.
define node
scripts/modules stage FLAVOUR=$(1) && scripts/samples && \
scripts/image $(if $(filter-out nullhz,$(1)),--test) $(NULLHZ_BUILD)/image/$(1).squashfs \
	$(NULLHZ_BUILD)/install/$(1) $(NULLHZ_BUILD)/install/programs
endef

.PHONY: image shell demo test test-long test-debug bench fuzz soak node-check
image: packages
	@$(call node,$(FLAVOUR))

demo: image
	@scripts/python scripts/demo --flavour $(FLAVOUR)

shell: image
	@scripts/python -m nullhz.shell $(FLAVOUR)

# The product's kernel too: it must refuse what the test kernel lets in.
test: packages
	@$(call node,test)
	@$(call node,nullhz)
	@scripts/python scripts/test --flavour test

# What counts is seen on the product's kernel too.
test-long: packages
	@$(call node,test)
	@$(call node,nullhz)
	@scripts/python scripts/test --flavour test --long

bench: packages
	@$(call node,test)
	@$(call node,nullhz)
	@scripts/python scripts/bench --flavour test

fuzz: packages
	@$(call node,test)
	@scripts/python scripts/fuzz $(if $(MINUTES),--minutes $(MINUTES))

soak: packages
	@$(call node,test)
	@scripts/python scripts/soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

node-check: image
	@scripts/python scripts/node-check --flavour $(FLAVOUR)

test-debug: packages
	@$(call node,debug)
	@$(call node,nullhz)
	@scripts/python scripts/test --flavour debug kunit e2e

.PHONY: mutate
mutate: packages
	@$(call node,test)
	@scripts/python scripts/mutate

.PHONY: deb test-deb release
deb: packages
	@scripts/deb

test-deb: packages
	@scripts/kernel/build nullhz >/dev/null
	@scripts/python scripts/test e2e --long --files kunit-tests/e2e/test_packages.py

release: packages
	@$(call node,nullhz)
	@scripts/python scripts/release

.PHONY: check check-series setup packages
check: packages
	@scripts/check

check-series: packages
	@scripts/kernel/each

setup:
	@scripts/setup

packages:
	@scripts/setup packages

.PHONY: clean prune-cache help
# Of a folder elsewhere, only one that scripts/lib.sh has marked.
clean:
	@if [ "$$NULLHZ_BUILD" != "$(CURDIR)/build" ] && [ -d "$$NULLHZ_BUILD" ] && \
	    [ ! -e "$$NULLHZ_BUILD/.nullhz-build" ]; then \
		echo "nullhz: $$NULLHZ_BUILD: made by something else (no .nullhz-build in it): nothing removed" >&2; \
		exit 1; \
	fi
	@rm -rf $(foreach d,c cargo check deb each image install kernel log modules release,"$$NULLHZ_BUILD/$d") \
		rust-project.json

prune-cache:
	@scripts/kernel/prune

help:
	@echo  'Modules (any kernel developer'"'"'s habits work):'
	@echo  '  modules         - build the modules (default)'
	@echo  '  modules_install - install them below INSTALL_MOD_PATH, signed if the kernel signs'
	@echo  '  rust-analyzer   - write rust-project.json for the editor'
	@echo  '  clean           - remove what was built here; the cache of kernels stays'
	@echo  ''
	@echo  'See it work (in virtual machines, everything they need is made first):'
	@echo  '  demo            - training survives a machine check and a hang: the whole path, with latencies'
	@echo  '  test            - all tests; the last line is "N passed, N failed, N skipped"'
	@echo  '  test-long       - repetitions at scale and variants that the tests above leave out'
	@echo  '  test-debug      - all that runs in a kernel, on one with sanitizers; every allocation fails once'
	@echo  '  mutate          - do the tests notice when drivers or series are wrong?'
	@echo  '  bench           - measurements beside their baselines'
	@echo  '  fuzz            - the fuzzers of the logic and of the devices, for MINUTES=10 altogether'
	@echo  '  soak            - everything at once at random, for MINUTES=20, with an account at the end; SEED=N'
	@echo  '  node-check      - what the product promises of a node, and what one shows'
	@echo  '  shell           - a node to look around in'
	@echo  '  check           - formatting, lints, the patch series, ABI layouts'
	@echo  '  check-series    - builds the kernel after each patch of the series; an hour'
	@echo  ''
	@echo  'Hand it over:'
	@echo  '  deb             - Debian packages (DKMS, agent, headers, Python client), in build/deb'
	@echo  '  test-deb        - install, upgrade and purge them, in a fresh Debian and on a node'
	@echo  '  release         - packages, series, image, and a manifest of all of it, in build/release'
	@echo  ''
	@echo  'Parts:'
	@echo  '  setup           - install what is missing (root), build the tools'
	@echo  '  kernel          - the kernel tree of FLAVOUR; build/kernel/FLAVOUR links to it'
	@echo  '  samples         - the user-space programs'
	@echo  '  image           - the image of a node'
	@echo  '  prune-cache     - remove kernels and tools that this checkout no longer uses'
	@echo  ''
	@echo  'Variables:'
	@echo  '  KDIR=dir        - build against this kernel (built, with Rust and the series)'
	@echo  '  FLAVOUR=name    - without KDIR: nullhz (default), test or debug'
	@echo  '  KERNEL_SRC=path - Linux 7.3 tree or tarball instead of the distribution'"'"'s package'
	@echo  '  UPDATE=1        - look for a newer 7.3.y in the distribution'
	@echo  '  O=dir           - build here instead of build/'
	@echo  '  NULLHZ_CACHE=dir - kernels and tools ($${XDG_CACHE_HOME:-~/.cache}/nullhz)'
	@echo  '  RUSTC=path      - compiler to use, its tools beside it (/usr/bin/rustc)'
	@echo  '  LLVM=-N         - of the C compiler, with KDIR; else as the kernel was built'
	@echo  '  V=1, W=1, C=1, CLIPPY=1, INSTALL_MOD_PATH=dir, ... - as in the kernel'
