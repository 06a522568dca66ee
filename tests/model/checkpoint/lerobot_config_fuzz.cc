// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "model/checkpoint/lerobot_config.h"

// A value that was taken is a size.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const auto config = piserve::checkpoint::ParseLerobotConfig(
      {reinterpret_cast<const char*>(data), size});
  if (!config.ok() || !config->has_value()) return 0;
  for (const auto& value :
       {(*config)->action_horizon, (*config)->action_dim,
        (*config)->max_token_len, (*config)->num_inference_steps}) {
    if (value.value_or(1) < 1) std::abort();
  }
  return 0;
}
