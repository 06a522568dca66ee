// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/wire_check.h"

#include <cstdint>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "model/error.h"
#include "piserve/v1/policy.pb.h"
#include "server/public_message.h"

namespace piserve::server::rpc {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::OneofDescriptor;
using google::protobuf::io::CodedInputStream;

// The wire types of protobuf's encoding; groups (3, 4) are not in proto3.
enum WireType { kVarint = 0, kFixed64 = 1, kDelimited = 2, kFixed32 = 5 };

absl::Status Malformed(absl::string_view where) {
  return InvalidField(where.empty() ? "message" : where, "MALFORMED_MESSAGE",
                      "the bytes are not a protobuf message of this type");
}

WireType NativeWireType(const FieldDescriptor& field) {
  switch (field.type()) {
    case FieldDescriptor::TYPE_DOUBLE:
    case FieldDescriptor::TYPE_FIXED64:
    case FieldDescriptor::TYPE_SFIXED64:
      return kFixed64;
    case FieldDescriptor::TYPE_FLOAT:
    case FieldDescriptor::TYPE_FIXED32:
    case FieldDescriptor::TYPE_SFIXED32:
      return kFixed32;
    case FieldDescriptor::TYPE_STRING:
    case FieldDescriptor::TYPE_BYTES:
    case FieldDescriptor::TYPE_MESSAGE:
      return kDelimited;
    default:
      return kVarint;
  }
}

bool WireTypeFits(const FieldDescriptor& field, int wire_type) {
  return wire_type == NativeWireType(field) ||
         (wire_type == kDelimited && field.is_packable());
}

class Walker {
 public:
  Walker(CodedInputStream& input, std::string* request_id)
      : input_(input), request_id_(*request_id) {}

  // `path` is that of the message, empty at the root.
  absl::Status Walk(const Descriptor& message, const std::string& path) {
    std::map<int, int> counts;
    std::map<const OneofDescriptor*, int> chosen;
    while (const std::uint32_t tag = input_.ReadTag()) {
      const int number = static_cast<int>(tag >> 3);
      const int wire_type = static_cast<int>(tag & 7);
      const FieldDescriptor* field = message.FindFieldByNumber(number);
      if (field == nullptr || !WireTypeFits(*field, wire_type)) {
        return InvalidField(Join(path, absl::StrCat("#", number)),
                            "UNKNOWN_FIELD",
                            absl::StrCat("got a field that this server does "
                                         "not know, wire type ",
                                         wire_type));
      }
      if (absl::Status s = CheckChoice(*field, path, chosen); !s.ok()) return s;
      if (absl::Status s = Value(*field, wire_type, path, counts[number]++);
          !s.ok()) {
        return s;
      }
    }
    return input_.ConsumedEntireMessage() ? absl::OkStatus() : Malformed(path);
  }

 private:
  static std::string Join(const std::string& path, absl::string_view name) {
    return path.empty() ? std::string(name) : absl::StrCat(path, ".", name);
  }

  // Two members of one oneof: the parser would silently keep the last.
  static absl::Status CheckChoice(
      const FieldDescriptor& field, const std::string& path,
      std::map<const OneofDescriptor*, int>& chosen) {
    const OneofDescriptor* choice = field.real_containing_oneof();
    if (choice == nullptr) return absl::OkStatus();
    const auto [it, fresh] = chosen.emplace(choice, field.number());
    if (fresh || it->second == field.number()) return absl::OkStatus();
    return InvalidField(Join(path, field.name()), "DOUBLED_FIELD",
                        absl::StrCat("got it beside another of ",
                                     choice->name(), ", want one"));
  }

  absl::Status Value(const FieldDescriptor& field, int wire_type,
                     const std::string& path, int index) {
    if (wire_type == kVarint) {
      std::uint64_t ignored;
      return input_.ReadVarint64(&ignored) ? absl::OkStatus() : Malformed(path);
    }
    int size = wire_type == kFixed64 ? 8 : 4;
    if (wire_type == kDelimited && !input_.ReadVarintSizeAsInt(&size)) {
      return Malformed(path);
    }
    if (field.type() == FieldDescriptor::TYPE_MESSAGE) {
      return SubMessage(field, size, path, index);
    }
    if (field.type() == FieldDescriptor::TYPE_STRING) {
      return Text(field, size, path);
    }
    return input_.Skip(size) ? absl::OkStatus() : Malformed(path);
  }

  absl::Status SubMessage(const FieldDescriptor& field, int size,
                          const std::string& path, int index) {
    std::string inner = Join(path, field.name());
    if (field.is_repeated() && index >= kMaxElements) {
      return InvalidField(inner, "TOO_MANY",
                          absl::StrCat("got more than ", kMaxElements,
                                       ", want at most that many"));
    }
    if (!field.is_repeated() && index > 0) {
      return InvalidField(inner, "DOUBLED_FIELD", "got it twice, want it once");
    }
    if (field.is_repeated()) absl::StrAppend(&inner, "[", index, "]");
    if (field.message_type() == v1::ObservationRequest::descriptor()) {
      inner.clear();
    }
    const auto limit = input_.PushLimit(size);
    absl::Status status = Walk(*field.message_type(), inner);
    // The bytes may end before the message that they promise.
    if (status.ok() && input_.BytesUntilLimit() > 0) status = Malformed(inner);
    input_.PopLimit(limit);
    return status;
  }

  absl::Status Text(const FieldDescriptor& field, int size,
                    const std::string& path) {
    std::string text;
    if (!input_.ReadString(&text, size)) return Malformed(path);
    if (!IsUtf8(text)) {
      return InvalidField(Join(path, field.name()), "NOT_UTF8",
                          "the text is not UTF-8");
    }
    if (field.containing_type() == v1::ObservationRequest::descriptor() &&
        field.number() == v1::ObservationRequest::kRequestIdFieldNumber) {
      request_id_ = std::move(text);
    }
    return absl::OkStatus();
  }

  CodedInputStream& input_;
  std::string& request_id_;
};

}  // namespace

absl::Status CheckWire(google::protobuf::io::ZeroCopyInputStream& input,
                       const Descriptor& message, std::string* request_id) {
  CodedInputStream coded(&input);
  return Walker(coded, request_id).Walk(message, "");
}

}  // namespace piserve::server::rpc
