// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace piserve::server {

inline constexpr char kVersion[] = PISERVE_VERSION;
inline constexpr char kCompiler[] = __VERSION__;

}  // namespace piserve::server
