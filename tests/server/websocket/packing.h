// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "piserve/v1/policy.pb.h"

// msgpack by hand, byte by byte, so that the decoder is not tested by its own
// library and a test may write what no encoder would.
namespace piserve::server::websocket::packing {

inline std::string BigEndian(std::uint64_t value, int bytes) {
  std::string out;
  for (int i = bytes - 1; i >= 0; --i) {
    out.push_back(static_cast<char>(value >> (8 * i)));
  }
  return out;
}

inline std::string Str(std::string_view text) {
  return "\xdb" + BigEndian(text.size(), 4) + std::string(text);
}

inline std::string Bin(std::string_view bytes) {
  return "\xc6" + BigEndian(bytes.size(), 4) + std::string(bytes);
}

inline std::string Int(std::uint64_t value) {
  return "\xcf" + BigEndian(value, 8);
}

inline std::string Double(double value) {
  std::uint64_t bits = 0;
  static_assert(sizeof bits == sizeof value);
  std::memcpy(&bits, &value, sizeof bits);
  return "\xcb" + BigEndian(bits, 8);
}

inline std::string ListOf(const std::vector<std::string>& items) {
  std::string out = "\xdd" + BigEndian(items.size(), 4);
  for (const std::string& item : items) out += item;
  return out;
}

// Keys and values are packed already.
using Pairs = std::vector<std::pair<std::string, std::string>>;

inline std::string MapOf(const Pairs& pairs) {
  std::string out = "\xdf" + BigEndian(pairs.size(), 4);
  for (const auto& [key, value] : pairs) out += key + value;
  return out;
}

inline std::string Shape(const std::vector<std::uint64_t>& sides) {
  std::vector<std::string> items;
  for (const std::uint64_t side : sides) items.push_back(Int(side));
  return ListOf(items);
}

inline std::string Array(std::string_view dtype,
                         const std::vector<std::uint64_t>& sides,
                         std::string_view data) {
  return MapOf({{Bin("__ndarray__"), "\xc3"},
                {Bin("data"), Bin(data)},
                {Bin("dtype"), Str(dtype)},
                {Bin("shape"), Shape(sides)}});
}

template <typename T>
std::string BytesOf(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()),
          values.size() * sizeof(T)};
}

inline std::string Doubles(const std::vector<double>& values) {
  return Array("<f8", {values.size()}, BytesOf(values));
}

// uint8 [h, w, 3] of one grey.
inline std::string Grey(int height, int width, char grey = 7) {
  return Array("|u1",
               {static_cast<std::uint64_t>(height),
                static_cast<std::uint64_t>(width), 3},
               std::string(3 * height * width, grey));
}

// uint8 [3, h, w].
inline std::string GreyPlanes(int height, int width, char grey = 7) {
  return Array("|u1",
               {3, static_cast<std::uint64_t>(height),
                static_cast<std::uint64_t>(width)},
               std::string(3 * height * width, grey));
}

inline v1::PolicyInfo InfoOf(
    const std::vector<std::pair<const char*, v1::CameraUse>>& cameras,
    const std::vector<int>& blocks) {
  v1::PolicyInfo info;
  info.set_name("fake");
  for (const auto& [name, use] : cameras) {
    v1::Camera& camera = *info.add_cameras();
    camera.set_name(name);
    camera.set_use(use);
  }
  for (const int size : blocks) info.add_state()->set_size(size);
  return info;
}

inline v1::PolicyInfo LiberoInfo() {
  return InfoOf({{"observation/image", v1::CAMERA_USE_REQUIRED},
                 {"observation/wrist_image", v1::CAMERA_USE_REQUIRED}},
                {3, 3, 2});
}

inline v1::PolicyInfo DroidInfo() {
  return InfoOf({{"observation/exterior_image_1_left", v1::CAMERA_USE_REQUIRED},
                 {"observation/wrist_image_left", v1::CAMERA_USE_REQUIRED}},
                {7, 1});
}

inline v1::PolicyInfo AlohaInfo() {
  return InfoOf({{"cam_high", v1::CAMERA_USE_REQUIRED},
                 {"cam_left_wrist", v1::CAMERA_USE_OPTIONAL},
                 {"cam_right_wrist", v1::CAMERA_USE_OPTIONAL},
                 {"cam_low", v1::CAMERA_USE_IGNORED}},
                {6, 1, 6, 1});
}

// What LIBERO's client sends, with an entry replaced (or added) by `changed`
// and, where that is empty, taken out.
inline std::string LiberoMessage(const std::string& key = "",
                                 const std::string& changed = "") {
  Pairs pairs;
  const Pairs good = {{"observation/image", Grey(4, 5)},
                      {"observation/wrist_image", Grey(2, 2)},
                      {"observation/state", Doubles({0, 1, 2, 3, 4, 5, 6, 7})},
                      {"prompt", Str("pick up the block")}};
  for (const auto& [name, value] : good) {
    if (name != key) pairs.emplace_back(Str(name), value);
  }
  if (!changed.empty()) pairs.emplace_back(Str(key), changed);
  return MapOf(pairs);
}

}  // namespace piserve::server::websocket::packing
