// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <vector>

namespace piserve::engine {

// A kernel that holds every multiprocessor, so that whatever else is enqueued
// in this process, on any stream, does not begin. Of one process one at a time.
// A CUDA call that fails ends the process.
class Blockade {
 public:
  // Returns once the device is held.
  Blockade();
  // Lets go.
  ~Blockade();
  Blockade(const Blockade&) = delete;
  Blockade& operator=(const Blockade&) = delete;

  // Ends in a fault: the process has lost the device from then on.
  void Trap();

 private:
  struct Shared;  // in pinned memory

  Shared* shared_ = nullptr;
  cudaStream_t stream_ = nullptr;
};

// Takes all device memory but `spare_bytes` and some MB.
class Ballast {
 public:
  explicit Ballast(std::size_t spare_bytes);
  ~Ballast();
  Ballast(const Ballast&) = delete;
  Ballast& operator=(const Ballast&) = delete;

 private:
  std::vector<void*> blocks_;
};

}  // namespace piserve::engine
