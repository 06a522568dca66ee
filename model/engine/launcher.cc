// SPDX-License-Identifier: Apache-2.0
#include "model/engine/launcher.h"

namespace piserve::engine {

void Launcher::Gemm(const GemmShape& shape, const GemmOperands& operands) {
  if (ok()) status_ = gemms_.Run(shape, operands, stream_);
}

}  // namespace piserve::engine
