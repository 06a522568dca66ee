// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace piserve::engine {

// One kernel or copy as the device ran it.
struct KernelSpan {
  std::string name;
  std::string category;  // "GEMM", "attention", "norm", "denoising", ...
  std::int64_t start_ns = 0;
  std::int64_t end_ns = 0;
};

// Everything that the device runs between Start and Stop, in order; one at a
// time in a process. By CUPTI, which slows what it watches by some microseconds
// a kernel: shares count, not sums.
class KernelTrace {
 public:
  static void Start();
  static std::vector<KernelSpan> Stop();
};

// Shares of the spans by category and the number of kernels, as lines of text.
std::string Summary(const std::vector<KernelSpan>& spans);

// For chrome://tracing.
std::string ChromeTrace(const std::vector<KernelSpan>& spans);

}  // namespace piserve::engine
