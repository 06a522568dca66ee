// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "model/engine/tensor_loader.h"
#include "model/engine/weights.h"
#include "model/variant.h"

namespace piserve::engine {

// Everything that depends on flow time alone, computed once in fp32 or wider:
// pi0's time half of the action MLP; pi0.5's modulations of all norms. Throws
// as ATen does; a failure of `load` leaves undefined tensors.
// Source: openpi pi0_pytorch.py, embed_suffix (docs/pi0.md 2.10, 2.11).
StepTables MakeStepTables(const Variant& variant,
                          const std::vector<int>& step_counts,
                          TensorLoader& load);

}  // namespace piserve::engine
