// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

namespace piserve::server::websocket {

// What a msgpack-numpy message holds. Strings, bytes and arrays borrow the
// message.

enum class ElementKind { kBool, kInt, kUnsigned, kFloat, kText };

// numpy's dtype, little-endian.
struct DType {
  ElementKind kind = ElementKind::kUnsigned;
  std::size_t size = 1;  // bytes of an element; text: UTF-32
};

// Row-major. `data` holds exactly the elements that `shape` promises, at any
// alignment.
struct NdArray {
  DType dtype;
  std::vector<std::size_t> shape;  // empty: a single element
  std::string_view data;

  std::size_t elements() const { return data.size() / dtype.size; }
};

struct Bytes {
  std::string_view bytes;
};

struct Value;
struct Entry;
using List = std::vector<Value>;
using Map = std::vector<Entry>;  // keys differ

// As Python would hold it: None, bool, int, float, str, bytes, ndarray, list,
// dict.
struct Value {
  std::variant<std::monostate, bool, std::int64_t, std::uint64_t, double,
               std::string_view, Bytes, NdArray, List, Map>
      of;
};

enum class KeyKind { kText, kBytes };

struct Entry {
  KeyKind kind = KeyKind::kText;
  std::string_view key;
  Value value;
};

// The value under a text key; null without one.
const Value* Find(const Map& map, std::string_view key);

}  // namespace piserve::server::websocket
