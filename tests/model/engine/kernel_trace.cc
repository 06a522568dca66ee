// SPDX-License-Identifier: Apache-2.0
#include "tests/model/engine/kernel_trace.h"

#include <cupti.h>
#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace piserve::engine {
namespace {

constexpr std::size_t kBufferBytes = 1 << 20;

std::vector<KernelSpan> spans;  // CUPTI's callbacks carry no context

std::string Demangle(const char* name) {
  int failed = 0;
  char* readable = abi::__cxa_demangle(name, nullptr, nullptr, &failed);
  std::string text = failed == 0 ? readable : name;
  std::free(readable);
  return text;
}

// By what kernels are called here and in the libraries; the first that fits.
std::string CategoryOf(const std::string& name) {
  static constexpr std::pair<const char*, const char*> kParts[] = {
      {"flash", "attention"},   {"Attention", "attention"},
      {"Denoise", "denoising"}, {"gemm", "GEMM"},
      {"nvjet", "GEMM"},        {"cutlass", "GEMM"},
      {"cublasLt", "GEMM"},     {"splitK", "GEMM"},
      {"Norm", "norm"},
  };
  for (const auto& [part, category] : kParts) {
    if (absl::StrContains(name, part)) return category;
  }
  return "fused elementwise";
}

void Add(const CUpti_Activity* record) {
  if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
    const auto* copy = reinterpret_cast<const CUpti_ActivityMemcpy5*>(record);
    spans.push_back({"copy", "copy", static_cast<std::int64_t>(copy->start),
                     static_cast<std::int64_t>(copy->end)});
    return;
  }
  if (record->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) return;
  const auto* kernel = reinterpret_cast<const CUpti_ActivityKernel9*>(record);
  const std::string name = Demangle(kernel->name);
  spans.push_back({name, CategoryOf(name),
                   static_cast<std::int64_t>(kernel->start),
                   static_cast<std::int64_t>(kernel->end)});
}

void CUPTIAPI Request(std::uint8_t** buffer, std::size_t* size,
                      std::size_t* records) {
  *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(8, kBufferBytes));
  *size = kBufferBytes;
  *records = 0;
}

void CUPTIAPI Complete(CUcontext, std::uint32_t, std::uint8_t* buffer,
                       std::size_t, std::size_t valid) {
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
    Add(record);
  }
  std::free(buffer);
}

}  // namespace

void KernelTrace::Start() {
  spans.clear();
  cuptiActivityRegisterCallbacks(Request, Complete);
  cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
  cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMCPY);
}

std::vector<KernelSpan> KernelTrace::Stop() {
  cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  cuptiActivityDisable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
  cuptiActivityDisable(CUPTI_ACTIVITY_KIND_MEMCPY);
  std::sort(spans.begin(), spans.end(), [](const auto& a, const auto& b) {
    return a.start_ns < b.start_ns;
  });
  return std::move(spans);
}

std::string Summary(const std::vector<KernelSpan>& spans) {
  struct Sum {
    double ms = 0;
    int count = 0;
  };
  std::map<std::string, Sum> categories, kernels;
  double all = 0;
  for (const KernelSpan& span : spans) {
    const double ms = (span.end_ns - span.start_ns) / 1e6;
    const std::string kernel =
        absl::StrCat(span.category, ": ", span.name.substr(0, 90));
    for (Sum* sum : {&categories[span.category], &kernels[kernel]}) {
      sum->ms += ms;
      ++sum->count;
    }
    all += ms;
  }
  std::string text =
      absl::StrFormat("%d kernels and copies, %.3f ms\n", spans.size(), all);
  const auto append = [&](const std::map<std::string, Sum>& sums) {
    for (const auto& [name, sum] : sums) {
      absl::StrAppendFormat(&text, "%6.1f %% %8.3f ms %5d  %s\n",
                            100 * sum.ms / all, sum.ms, sum.count, name);
    }
  };
  append(categories);
  append(kernels);
  return text;
}

std::string ChromeTrace(const std::vector<KernelSpan>& spans) {
  nlohmann::json events = nlohmann::json::array();
  for (const KernelSpan& span : spans) {
    events.push_back({{"name", span.name},
                      {"cat", span.category},
                      {"ph", "X"},
                      {"ts", (span.start_ns - spans.front().start_ns) / 1e3},
                      {"dur", (span.end_ns - span.start_ns) / 1e3},
                      {"pid", 0},
                      {"tid", span.category}});
  }
  return nlohmann::json{{"traceEvents", events}}.dump();
}

}  // namespace piserve::engine
