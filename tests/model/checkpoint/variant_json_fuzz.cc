// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "model/checkpoint/tensor_spec.h"
#include "model/checkpoint/variant_json.h"

// What was taken survives being written and read again, and its tensors have
// sizes that can be multiplied.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  using namespace piserve::checkpoint;  // NOLINT: one function
  const auto file =
      ParseVariantJson({reinterpret_cast<const char*>(data), size});
  if (!file.ok()) return 0;
  const auto again = ParseVariantJson(ToJson(*file));
  if (!again.ok() || again->seed != file->seed ||
      DebugString(again->variant) != DebugString(file->variant)) {
    std::abort();
  }
  for (const TensorSpec& spec : TensorSpecs(file->variant)) {
    std::int64_t bytes = 4;
    for (const std::int64_t dim : spec.shape) {
      if (dim < 1 || __builtin_mul_overflow(bytes, dim, &bytes)) std::abort();
    }
  }
  return 0;
}
