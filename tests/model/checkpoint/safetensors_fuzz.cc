// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "model/checkpoint/file_weights.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/tensor_index.h"

// Any bytes are a file or are refused; the tensors of a file that was taken lie
// inside it.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  using namespace piserve::checkpoint;  // NOLINT: one function
  const std::span<const std::byte> bytes(
      reinterpret_cast<const std::byte*>(data), size);
  const auto file = Safetensors::Parse(bytes, nullptr);
  if (!file.ok()) return 0;
  for (const StoredTensor& tensor : file->tensors()) {
    const std::byte* end = tensor.data.data() + tensor.data.size();
    if (tensor.data.data() < bytes.data() || end > bytes.data() + size ||
        file->Find(tensor.name) != &tensor) {
      std::abort();
    }
  }
  const auto index = IndexTensors(*file);
  if (!index.ok()) return 0;
  const auto variant = DetectVariant(*index);
  if (variant.ok() && MakeFileWeights(*file, *variant).ok()) {
    std::abort();  // no input of a fuzzer holds 3.5 B parameters
  }
  return 0;
}
