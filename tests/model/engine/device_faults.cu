// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstdlib>
#include <new>

#include "tests/model/engine/device_faults.h"

namespace piserve::engine {
namespace {

constexpr int kThreads = 1024;
constexpr int kHold = 0, kLetGo = 1, kTrap = 2;

void OrExit(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(70);
}

__device__ int ctas_here = 0;

// As many CTAs as the device has room for; none ends before it is told. *held
// is set when all are there.
__global__ void __launch_bounds__(kThreads)
    HoldKernel(volatile int* held, const volatile int* order) {
  if (threadIdx.x == 0) {
    if (atomicAdd(&ctas_here, 1) + 1 == gridDim.x) {
      ctas_here = 0;
      *held = 1;
      __threadfence_system();
    }
    while (*order == kHold) __nanosleep(1000);
    if (*order == kTrap) asm volatile("trap;");
  }
  __syncthreads();
}

int MostCtas() {
  int device = 0, multiprocessors = 0, each = 0;
  OrExit(cudaGetDevice(&device), "device");
  OrExit(cudaDeviceGetAttribute(&multiprocessors,
                                cudaDevAttrMultiProcessorCount, device),
         "multiprocessors");
  OrExit(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, HoldKernel,
                                                       kThreads, 0),
         "occupancy");
  return multiprocessors * each;
}

}  // namespace

struct Blockade::Shared {
  int held = 0;
  int order = kHold;
};

Blockade::Blockade() {
  const int ctas = MostCtas();
  void* memory = nullptr;
  OrExit(cudaHostAlloc(&memory, sizeof(Shared), cudaHostAllocMapped), "pinned");
  shared_ = new (memory) Shared;
  OrExit(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
  HoldKernel<<<ctas, kThreads, 0, stream_>>>(&shared_->held, &shared_->order);
  OrExit(cudaGetLastError(), "holding");
  volatile int& held = shared_->held;
  while (held == 0) {
  }
}

Blockade::~Blockade() {
  volatile int& order = shared_->order;
  order = kLetGo;
}

void Blockade::Trap() {
  volatile int& order = shared_->order;
  order = kTrap;
}

Ballast::Ballast(std::size_t spare_bytes) {
  for (std::size_t block = std::size_t{1} << 30; block >= std::size_t{1} << 22;
       block /= 2) {
    for (;;) {
      std::size_t free = 0, total = 0;
      OrExit(cudaMemGetInfo(&free, &total), "memory");
      void* memory = nullptr;
      if (free < spare_bytes + block ||
          cudaMalloc(&memory, block) != cudaSuccess) {
        break;
      }
      blocks_.push_back(memory);
    }
  }
  cudaGetLastError();  // a cudaMalloc that failed
}

Ballast::~Ballast() {
  for (void* block : blocks_) cudaFree(block);
}

}  // namespace piserve::engine
