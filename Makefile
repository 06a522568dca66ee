# SPDX-License-Identifier: Apache-2.0
# Two commands for a newcomer: `make demo` and `make test`. Each sets up what it
# needs. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help

JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60
# clang-format would move its CUTLASS includes; that wants a GPU to be tested on.
LAID_OUT_BY_HAND := model/kernels/weight_gemm/epilogue.cuh
# Objects are keyed by content, so that any clone can use them. Depend mode: a
# file that is not there yet is not preprocessed once more to be looked for.
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1
export CCACHE_DEPEND := 1
export NINJA_STATUS := [%f/%t %es] 

build = cmake --preset $(1) --log-level=WARNING && \
        cmake --build --preset $(1) --parallel $(JOBS) $(2)

.PHONY: help setup build demo test client-compat asan tsan fuzz thread-safety coverage bench \
        bundle format clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | \
	  awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup:  ## Install packages, libtorch and the Python environment
	@deploy/setup/setup.sh

build: setup  ## Build everything, tests included, in build/dev
	@$(call build,dev)

demo: setup  ## Serve small policies: compare with openpi, then move a robot
	@$(call build,dev,--target policy_server)
	@.venv/bin/python deploy/demo/demo.py --server build/dev/bin/policy_server

test: build  ## Build and run every test (ctest, pytest), print one summary
	@.venv/bin/python tests/run_all.py build/dev

client-compat: setup  ## Try the Python wheel on protobuf 3.20, 5 and 7
	@$(call build,dev,--target piserve_test_server)
	@.venv/bin/python tests/clients/python/compat.py

asan: setup  ## C++ tests under AddressSanitizer and UBSan
	@$(call build,asan)
	@tests/sanitize.sh address build/asan

tsan: setup  ## C++ tests that share state under ThreadSanitizer
	@$(call build,tsan)
	@tests/sanitize.sh thread build/tsan

fuzz: setup  ## Each fuzz target for FUZZ_SECONDS (60), then corpus coverage
	@$(call build,fuzz)
	@tests/fuzz/run.sh build/fuzz $(FUZZ_SECONDS)
	@$(MAKE) --no-print-directory coverage

coverage: setup  ## Line coverage of the parsers by the kept corpora
	@$(call build,coverage)
	@tests/fuzz/coverage.sh build/coverage

.PHONY: libero-check
libero-check:  ## Check the LIBERO evaluation against LIBERO itself (2 GB)
	@tests/libero_check/run.sh

thread-safety: setup  ## clang's analysis of what each mutex guards
	@$(call build,thread-safety)

bench: setup  ## Build the benchmarks (run them from build/dev/bin)
	@cmake --preset dev --log-level=WARNING
	@cmake --build build/dev --parallel $(JOBS) --target benchmarks

bundle: export PISERVE_CUDA = 1
bundle: setup  ## CUDA build for a GPU machine, as build/piserve.tar.xz
	@$(call build,cuda,--target policy_server policy_cli policy_load model_bench \
	  kernel_benchmark kernels_test expert_test engine_network_test \
	  engine_accuracy_test engine_fault_test)
	@deploy/bundle/make.sh build/cuda build/piserve

format:  ## Lay out C++ by .clang-format and Python by ruff; CHECK=1: only look
	@git ls-files '*.cc' '*.h' '*.cu' '*.cuh' $(LAID_OUT_BY_HAND:%=':!%') | \
	  xargs clang-format-14 $(if $(CHECK),--dry-run -Werror,-i)
	@.venv/bin/ruff format $(if $(CHECK),--check) clients/python deploy tests training

clean:  ## Remove what was built; keeps .deps and .venv
	rm -rf build
