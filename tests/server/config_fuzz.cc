// SPDX-License-Identifier: Apache-2.0
// Any bytes as a configuration: accepted or refused in one line.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "server/config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto config = piserve::server::ParseConfig(text, "/etc/piserve");
  if (!config.ok() && config.status().message().empty()) std::abort();
  return 0;
}
