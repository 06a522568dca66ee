// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/json.h"

#include <algorithm>
#include <set>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace piserve::checkpoint {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxDepth = 32;
constexpr std::size_t kMaxQuoted = 200;

// Walks a text without building anything and keeps the first complaint.
class Checker : public json::json_sax_t {
 public:
  const absl::Status& status() const { return status_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }

  bool start_object(std::size_t) override { return Enter(); }
  bool end_object() override { return Leave(); }
  bool start_array(std::size_t) override { return Enter(); }
  bool end_array() override { return Leave(); }

  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    return Complain(absl::StrCat(Quoted(name), " is given twice"));
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return Complain(absl::StrCat("not JSON at byte ", position));
  }

 private:
  bool Enter() {
    if (keys_.size() == kMaxDepth) {
      return Complain(
          absl::StrCat("nested deeper than ", kMaxDepth, " levels"));
    }
    keys_.emplace_back();
    return true;
  }

  bool Leave() {
    keys_.pop_back();
    return true;
  }

  bool Complain(const std::string& message) {
    status_ = absl::FailedPreconditionError(message);
    return false;
  }

  absl::Status status_;
  std::vector<std::set<std::string>> keys_;  // of the open objects and arrays
};

}  // namespace

absl::StatusOr<json> ParseJson(std::string_view text) {
  Checker checker;
  json::sax_parse(text.begin(), text.end(), &checker);
  if (!checker.status().ok()) return checker.status();
  return json::parse(text.begin(), text.end(), /*cb=*/nullptr,
                     /*allow_exceptions=*/false);
}

std::string Quoted(std::string_view text) {
  const absl::string_view head(text.data(), std::min(text.size(), kMaxQuoted));
  return absl::StrCat("\"", absl::CHexEscape(head),
                      text.size() > kMaxQuoted ? "...\"" : "\"");
}

std::string FieldPath(std::string_view where, std::string_view name) {
  const std::string field(name);
  return where.empty() ? field : absl::StrCat(std::string(where), ".", field);
}

std::string DescribeJson(const json& value) {
  if (value.is_string()) return "a string";
  if (value.is_array()) return absl::StrCat("a list of ", value.size());
  if (value.is_object()) return "an object";
  return value.dump();  // a number, true, false or null
}

absl::StatusOr<const json*> Field(const json& object, std::string_view where,
                                  std::string_view name) {
  if (!object.is_object()) {
    return absl::FailedPreconditionError(
        absl::StrCat(where.empty() ? "top level" : std::string(where), ": got ",
                     DescribeJson(object), ", want an object"));
  }
  const auto it = object.find(std::string(name));
  if (it == object.end()) {
    return absl::FailedPreconditionError(
        absl::StrCat(FieldPath(where, name), ": missing"));
  }
  return &*it;
}

absl::StatusOr<std::int64_t> IntegerField(const json& object,
                                          std::string_view where,
                                          std::string_view name,
                                          std::int64_t min, std::int64_t max) {
  absl::StatusOr<const json*> field = Field(object, where, name);
  if (!field.ok()) return field.status();
  const json& value = **field;
  // An unsigned number beyond int64 would wrap in get<int64_t>.
  const bool fits = value.is_number_unsigned()
                        ? value.get<std::uint64_t>() <= INT64_MAX
                        : value.is_number_integer();
  if (fits) {
    const std::int64_t number = value.get<std::int64_t>();
    if (number >= min && number <= max) return number;
  }
  return absl::FailedPreconditionError(
      absl::StrCat(FieldPath(where, name), ": got ", DescribeJson(value),
                   ", want an integer from ", min, " to ", max));
}

}  // namespace piserve::checkpoint
