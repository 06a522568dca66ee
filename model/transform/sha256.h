// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace piserve::transform {

// Lower-case hex.
std::string Sha256Hex(std::string_view bytes);

}  // namespace piserve::transform
