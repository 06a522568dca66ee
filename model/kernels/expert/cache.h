// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/expert/expert.h"

namespace piserve::kernels::expert {

// Arranges each row's valid keys and values into the tiles that wgmma reads,
// zero behind them, and marks every packet of the workspace as not yet sent.
// Bound by L2 and HBM, about 15 MB a row in and out.
cudaError_t LaunchArrangeCache(const ExpertArgs& args, cudaStream_t stream);

}  // namespace piserve::kernels::expert
