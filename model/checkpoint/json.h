// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace piserve::checkpoint {

// Parses without exceptions, and stricter than nlohmann alone, which keeps the
// last of two equal keys: FAILED_PRECONDITION for a doubled key, nesting deeper
// than 32, or anything that is no JSON, numbers beyond double included.
absl::StatusOr<nlohmann::json> ParseJson(std::string_view text);

// Text from a file as one printable line in quotes, cut after 200 bytes.
std::string Quoted(std::string_view text);

// Fields of an object. `where` is the object's path for messages, "" at the
// top. FAILED_PRECONDITION if `object` is none, or lacks the field.
absl::StatusOr<const nlohmann::json*> Field(const nlohmann::json& object,
                                            std::string_view where,
                                            std::string_view name);

// FAILED_PRECONDITION if the field is no integer in [min, max].
absl::StatusOr<std::int64_t> IntegerField(const nlohmann::json& object,
                                          std::string_view where,
                                          std::string_view name,
                                          std::int64_t min, std::int64_t max);

// "where.name", or "name" at the top.
std::string FieldPath(std::string_view where, std::string_view name);

// "a string", "-3": what a value is, for messages.
std::string DescribeJson(const nlohmann::json& value);

}  // namespace piserve::checkpoint
