// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/weights.h"

namespace piserve::checkpoint {

std::size_t SizeOf(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

}  // namespace piserve::checkpoint
