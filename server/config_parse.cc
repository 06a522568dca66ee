// SPDX-License-Identifier: Apache-2.0
#include "server/config_parse.h"

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/text_format.h"

namespace piserve::server {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;

// "A, B or C", without what stands for nothing given.
std::string Names(const EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) {
    if (!absl::EndsWith(type.value(i)->name(), "_UNSPECIFIED")) {
      names.push_back(type.value(i)->name());
    }
  }
  if (names.size() < 2) return absl::StrJoin(names, "");
  const std::string last = names.back();
  names.pop_back();
  return absl::StrCat(absl::StrJoin(names, ", "), " or ", last);
}

// What to say behind a complaint of protobuf's about a name that a field of
// this message, or of one inside, does not know: it tells the field alone.
std::string Advice(const Descriptor& message, const std::string& complaint) {
  for (int i = 0; i < message.field_count(); ++i) {
    const FieldDescriptor& field = *message.field(i);
    if (field.message_type() != nullptr) {
      const std::string inside = Advice(*field.message_type(), complaint);
      if (!inside.empty()) return inside;
    }
    if (field.enum_type() != nullptr &&
        absl::StrContains(complaint,
                          absl::StrCat("for field \"", field.name(), "\""))) {
      return absl::StrCat(" Want ", Names(*field.enum_type()), ".");
    }
  }
  return "";
}

class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, google::protobuf::io::ColumnNumber column,
                const std::string& message) override {
    if (!text_.empty()) return;  // later ones follow from it
    text_ = absl::StrCat("configuration: line ", line + 1, ", column ",
                         column + 1, ": ", message);
    if (absl::StartsWith(message, "Unknown enumeration value")) {
      absl::StrAppend(&text_,
                      Advice(*config::ServerConfig::descriptor(), message));
    }
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace

absl::Status ParseConfigText(absl::string_view text,
                             config::ServerConfig& message) {
  FirstError error;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  parser.SetRecursionLimit(16);
  google::protobuf::io::ArrayInputStream stream(text.data(),
                                                static_cast<int>(text.size()));
  if (parser.Parse(&stream, &message)) return absl::OkStatus();
  return absl::InvalidArgumentError(error.text());
}

}  // namespace piserve::server
