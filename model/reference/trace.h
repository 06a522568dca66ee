// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

#include "absl/strings/str_cat.h"

namespace piserve::reference {

// Sees the output of a stage under the name that tests/golden/MANIFEST.md gives
// it ("cache_k.2", "suffix_emb"), whole and as the network holds it. A stage of
// the denoising loop comes once a step. Empty: nobody looks.
using Trace =
    std::function<void(const std::string& stage, const at::Tensor& value)>;

// Joins the parts of the name only if somebody looks.
template <typename... Parts>
void Record(const Trace& trace, const at::Tensor& value,
            const Parts&... parts) {
  if (trace) trace(absl::StrCat(parts...), value);
}

}  // namespace piserve::reference
