// SPDX-License-Identifier: Apache-2.0
#include "tests/support/synthetic_inputs.h"

#include <array>
#include <cmath>
#include <cstdio>

namespace piserve::test {
namespace {

// The mixed 64-bit values of one named stream.
class Stream {
 public:
  Stream(std::string_view name, std::uint64_t seed)
      : base_(Fnv1a64(name) + seed * 0x9E3779B97F4A7C15u) {}

  std::uint64_t operator[](std::uint64_t i) const {
    std::uint64_t z = base_ + i * 0xD1342543DE82EF95u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }

 private:
  std::uint64_t base_;
};

}  // namespace

std::vector<std::uint8_t> SyntheticImage(std::uint64_t seed, int height,
                                         int width) {
  const Stream image("image", seed);
  const Stream grain("grain", seed);
  std::vector<std::uint8_t> pixels;
  pixels.reserve(std::size_t{3} * height * width);
  for (std::uint64_t y = 0; y < height; ++y) {
    for (std::uint64_t x = 0; x < width; ++x) {
      for (std::uint64_t c = 0; c < 3; ++c) {
        const std::uint64_t ramp = x * (3 + c) + y * (5 - c) + 37 * seed;
        const std::uint64_t cell = (y >> 3) * 65536 + (x >> 3);
        const std::uint64_t pixel = y * 65536 + x;
        pixels.push_back(static_cast<std::uint8_t>(
            ((ramp & 255) >> 1) + (image[cell * 4 + c] >> 58) +
            (grain[pixel * 4 + c] >> 58)));
      }
    }
  }
  return pixels;
}

std::vector<float> SyntheticNoise(std::uint64_t seed, int count) {
  const Stream stream("noise", seed);
  std::vector<float> noise(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    std::int64_t sum = -(std::int64_t{1} << 25);
    for (std::uint64_t j = 0; j < 4; ++j) sum += stream[4 * i + j] >> 40;
    noise[i] =
        static_cast<float>(static_cast<double>(sum) * 0x1p-24 * std::sqrt(3.0));
  }
  return noise;
}

std::vector<double> SyntheticState(std::uint64_t seed, int count) {
  const Stream stream("state", seed);
  std::vector<double> state(count);
  for (int i = 0; i < count; ++i) {
    const float uniform = static_cast<float>(stream[i] >> 40) * 0x1p-24f - 0.5f;
    state[i] = 2.0 * uniform;
  }
  return state;
}

std::vector<std::int32_t> SyntheticTokens(std::uint64_t seed, int count,
                                          int vocab) {
  const Stream stream("tokens", seed);
  std::vector<std::int32_t> tokens(count);
  for (int i = 0; i < count; ++i) {
    tokens[i] = static_cast<std::int32_t>(
        4 + (stream[i] >> 32) % static_cast<std::uint64_t>(vocab - 4));
  }
  if (count > 0) tokens[0] = 2;
  return tokens;
}

std::uint64_t Fnv1a64(std::string_view bytes) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char byte : bytes) {
    hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3u;
  }
  return hash;
}

std::string Fnv1a64Hex(const std::vector<std::uint8_t>& bytes) {
  const std::uint64_t hash =
      Fnv1a64({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  std::array<char, 17> hex;
  std::snprintf(hex.data(), hex.size(), "%016llx",
                static_cast<unsigned long long>(hash));
  return hex.data();
}

}  // namespace piserve::test
