// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

// Readers of tests/golden. They trust the files and throw on anything odd:
// they are no parsers of input.
namespace piserve::test {

// Absolute path of a file below tests/golden.
std::string GoldenPath(std::string_view name);

// Bytes of a file.
std::string ReadFile(const std::string& path);

// A golden JSON file.
nlohmann::json GoldenJson(std::string_view name);

// A number, or one of the strings NaN, Infinity, -Infinity.
double Number(const nlohmann::json& json);
std::vector<double> Numbers(const nlohmann::json& json);

// A golden .safetensors file, wholly in memory.
class GoldenTensors {
 public:
  explicit GoldenTensors(std::string_view name);

  bool contains(const std::string& tensor) const;
  std::vector<std::int64_t> shape(const std::string& tensor) const;
  std::string dtype(const std::string& tensor) const;  // "F32", as in the file

  // Row-major elements. T must be of the dtype's size: float for F32, double
  // for F64, int64_t for I64, uint8_t for U8 and BOOL, uint16_t for BF16.
  template <typename T>
  std::vector<T> Get(const std::string& tensor) const {
    const std::string_view bytes = Bytes(tensor, sizeof(T));
    std::vector<T> values(bytes.size() / sizeof(T));
    bytes.copy(reinterpret_cast<char*>(values.data()), bytes.size());
    return values;
  }

 private:
  std::string_view Bytes(const std::string& tensor,
                         std::size_t element_bytes) const;

  std::string file_;
  nlohmann::json header_;
  std::size_t data_offset_ = 0;
};

}  // namespace piserve::test
