// SPDX-License-Identifier: Apache-2.0
#include "server/websocket/msgpack_codec.h"

#include <bit>
#include <cstdint>
#include <map>
#include <msgpack.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/error.h"
#include "server/websocket/ndarray.h"

namespace piserve::server::websocket {
namespace {

// Arrays travel little-endian and are copied as they lie in memory.
static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kArrayMark = "__ndarray__";
constexpr std::string_view kScalarMark = "__npgeneric__";

absl::Status Malformed(absl::string_view message) {
  return InvalidField("message", "MALFORMED_MESSAGE", message);
}

const Value* FindBytesKey(const Map& map, std::string_view key) {
  for (const Entry& entry : map) {
    if (entry.kind == KeyKind::kBytes && entry.key == key) return &entry.value;
  }
  return nullptr;
}

// Builds values from what msgpack's parser calls out. The first error stops it.
class Builder : public msgpack::null_visitor {
 public:
  const absl::Status& status() const { return status_; }
  Value TakeRoot() { return std::move(root_); }

  bool visit_nil() { return Put(Value{}); }
  bool visit_boolean(bool v) { return Put({v}); }
  bool visit_positive_integer(std::uint64_t v) { return Put({v}); }
  // Of any sign: encoders may use signed types for positive numbers.
  bool visit_negative_integer(std::int64_t v) {
    return v < 0 ? Put({v}) : Put({static_cast<std::uint64_t>(v)});
  }
  bool visit_float32(float v) { return Put({double{v}}); }
  bool visit_float64(double v) { return Put({v}); }
  bool visit_str(const char* v, std::uint32_t size) {
    return Put({std::string_view(v, size)});
  }
  bool visit_bin(const char* v, std::uint32_t size) {
    return Put({Bytes{{v, size}}});
  }
  bool visit_ext(const char*, std::uint32_t) {
    return Fail(Malformed("got an extension type, want none"));
  }

  bool start_array(std::uint32_t size) { return Begin({List{}}, size); }
  bool end_array() { return End(); }
  bool start_map(std::uint32_t size) {
    return Begin({Map{}}, std::uint64_t{2} * size);
  }
  bool start_map_key() {
    stack_.back().at_key = true;
    return true;
  }
  bool end_map_key() {
    stack_.back().at_key = false;
    return true;
  }
  bool end_map() { return End(); }

 private:
  // A list or map that is not complete.
  struct Level {
    Value value;
    bool at_key = false;
    Entry entry;  // of a map: the one whose key has been read
  };

  bool Fail(absl::Status status) {
    status_ = std::move(status);
    return false;
  }

  bool Begin(Value value, std::uint64_t values) {
    if (stack_.size() == kMaxDepth) {
      return Fail(Malformed(absl::StrCat("got more than ", kMaxDepth,
                                         " levels of maps and lists, want "
                                         "fewer")));
    }
    values_ += values;  // both below 2^34
    if (values_ > kMaxValues) {
      return Fail(Malformed(absl::StrCat("got more than ", kMaxValues,
                                         " values, want fewer: send arrays")));
    }
    stack_.emplace_back().value = std::move(value);
    return true;
  }

  bool End() {
    Value value = std::move(stack_.back().value);
    stack_.pop_back();
    if (const Map* map = std::get_if<Map>(&value.of)) {
      absl::StatusOr<Value> resolved = Resolve(*map);
      if (!resolved.ok()) return Fail(resolved.status());
      if (!std::holds_alternative<std::monostate>(resolved->of)) {
        return Put(*std::move(resolved));
      }
    }
    return Put(std::move(value));
  }

  // The array or scalar that a map stands for; None if it is just a map.
  absl::StatusOr<Value> Resolve(const Map& map) const {
    const bool array = FindBytesKey(map, kArrayMark) != nullptr;
    if (!array && FindBytesKey(map, kScalarMark) == nullptr) return Value{};
    const Value* data = FindBytesKey(map, "data");
    const Value* dtype = FindBytesKey(map, "dtype");
    const Value* shape = FindBytesKey(map, "shape");
    if (data == nullptr || dtype == nullptr || (array && shape == nullptr)) {
      return BadArray(Path(), array ? "want the keys data, dtype and shape"
                                    : "want the keys data and dtype");
    }
    if (!array) return MakeScalar(*data, *dtype, Path());
    absl::StatusOr<NdArray> made = MakeArray(*data, *dtype, *shape, Path());
    if (!made.ok()) return made.status();
    return Value{*std::move(made)};
  }

  bool Put(Value value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return true;
    }
    Level& top = stack_.back();
    if (List* list = std::get_if<List>(&top.value.of)) {
      list->push_back(std::move(value));
      return true;
    }
    if (top.at_key) return SetKey(value, top);
    top.entry.value = std::move(value);
    std::get<Map>(top.value.of).push_back(std::move(top.entry));
    return true;
  }

  bool SetKey(const Value& value, Level& top) {
    Entry& entry = top.entry;
    if (const auto* text = std::get_if<std::string_view>(&value.of)) {
      entry = {KeyKind::kText, *text, {}};
    } else if (const auto* bytes = std::get_if<Bytes>(&value.of)) {
      entry = {KeyKind::kBytes, bytes->bytes, {}};
    } else {
      return Fail(Malformed("got a key that is neither str nor bytes"));
    }
    if (entry.key.size() > kMaxKeyBytes) {
      return Fail(
          Malformed(absl::StrCat("got a key of ", entry.key.size(),
                                 " bytes, want at most ", kMaxKeyBytes)));
    }
    for (const Entry& other : std::get<Map>(top.value.of)) {
      if (other.kind != entry.kind || other.key != entry.key) continue;
      return Fail(Malformed(absl::StrCat("got the key ", ShownKey(entry.key),
                                         " twice, want it once")));
    }
    return true;
  }

  // "images/cam_high": the keys that lead to where the parser is.
  std::string Path() const {
    std::string path;
    for (const Level& level : stack_) {
      if (!std::holds_alternative<Map>(level.value.of)) continue;
      absl::StrAppend(&path, path.empty() ? "" : "/",
                      ShownKey(level.entry.key));
    }
    return path.empty() ? "message" : path;
  }

  absl::Status status_;
  Value root_;
  std::vector<Level> stack_;
  std::uint64_t values_ = 0;
};

using Packer = msgpack::packer<msgpack::sbuffer>;

void PackText(Packer& packer, std::string_view text) {
  packer.pack_str(static_cast<std::uint32_t>(text.size()));
  packer.pack_str_body(text.data(), static_cast<std::uint32_t>(text.size()));
}

void PackBytes(Packer& packer, std::string_view bytes) {
  packer.pack_bin(static_cast<std::uint32_t>(bytes.size()));
  packer.pack_bin_body(bytes.data(), static_cast<std::uint32_t>(bytes.size()));
}

// float64, always: the packer's own writes whole numbers as ints.
void PackDouble(Packer& packer, double value) {
  auto bits = std::bit_cast<std::uint64_t>(value);
  char bytes[9] = {'\xcb'};
  for (int i = 8; i > 0; --i, bits >>= 8) bytes[i] = static_cast<char>(bits);
  packer.pack_str_body(bytes, sizeof bytes);  // as they are
}

void PackActions(Packer& packer, const InferenceReply& reply) {
  const std::vector<double> actions(reply.actions.begin(), reply.actions.end());
  packer.pack_map(4);
  PackBytes(packer, kArrayMark);
  packer.pack_true();
  PackBytes(packer, "data");
  PackBytes(packer, {reinterpret_cast<const char*>(actions.data()),
                     actions.size() * sizeof(double)});
  PackBytes(packer, "dtype");
  PackText(packer, "<f8");
  PackBytes(packer, "shape");
  packer.pack_array(2);
  packer.pack_int(reply.horizon);
  packer.pack_int(reply.dim);
}

void PackMs(Packer& packer, std::string_view key, absl::Duration time) {
  PackText(packer, key);
  PackDouble(packer, absl::ToDoubleMilliseconds(time));
}

void PackJson(Packer& packer, const google::protobuf::Value& value) {
  using google::protobuf::Value;
  switch (value.kind_case()) {
    case Value::kNumberValue:
      PackDouble(packer, value.number_value());
      return;
    case Value::kStringValue:
      PackText(packer, value.string_value());
      return;
    case Value::kBoolValue:
      value.bool_value() ? packer.pack_true() : packer.pack_false();
      return;
    case Value::kListValue:
      packer.pack_array(value.list_value().values_size());
      for (const Value& item : value.list_value().values()) {
        PackJson(packer, item);
      }
      return;
    case Value::kStructValue: {
      const auto& fields = value.struct_value().fields();
      const std::map<std::string, Value> sorted(fields.begin(), fields.end());
      packer.pack_map(static_cast<std::uint32_t>(sorted.size()));
      for (const auto& [key, item] : sorted) {
        PackText(packer, key);
        PackJson(packer, item);
      }
      return;
    }
    case Value::kNullValue:
    case Value::KIND_NOT_SET:
      packer.pack_nil();
  }
}

}  // namespace

absl::StatusOr<Map> DecodeMap(std::string_view message) {
  Builder builder;
  std::size_t offset = 0;
  bool whole = false;
  try {
    whole = msgpack::parse(message.data(), message.size(), offset, builder);
  } catch (const msgpack::unpack_error&) {  // an extension type of 4 GiB
    return Malformed("the bytes are not msgpack");
  }
  if (!builder.status().ok()) return builder.status();
  if (!whole) return Malformed("the bytes are not msgpack, or end early");
  if (offset != message.size()) {
    return Malformed(absl::StrCat("got ", message.size() - offset,
                                  " bytes behind the map, want none"));
  }
  Value root = builder.TakeRoot();
  Map* map = std::get_if<Map>(&root.of);
  if (map == nullptr) {
    return Malformed(
        absl::StrCat("got ", Describe(root), ", want a map of an observation"));
  }
  return std::move(*map);
}

std::string EncodeReply(const InferenceReply& reply, const ReplyTimes& times) {
  msgpack::sbuffer buffer(reply.actions.size() * sizeof(double) + 256);
  Packer packer(buffer);
  packer.pack_map(3);
  PackText(packer, "actions");
  PackActions(packer, reply);
  PackText(packer, "policy_timing");
  packer.pack_map(1);
  PackMs(packer, "infer_ms", times.policy);
  PackText(packer, "server_timing");
  packer.pack_map(times.previous_total.has_value() ? 2 : 1);
  PackMs(packer, "infer_ms", times.server);
  if (times.previous_total.has_value()) {
    PackMs(packer, "prev_total_ms", *times.previous_total);
  }
  return {buffer.data(), buffer.size()};
}

std::string EncodeMetadata(const google::protobuf::Struct& metadata) {
  msgpack::sbuffer buffer;
  Packer packer(buffer);
  google::protobuf::Value value;
  *value.mutable_struct_value() = metadata;
  PackJson(packer, value);
  return {buffer.data(), buffer.size()};
}

}  // namespace piserve::server::websocket
