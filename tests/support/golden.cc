// SPDX-License-Identifier: Apache-2.0
#include "tests/support/golden.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <stdexcept>

namespace piserve::test {

std::string GoldenPath(std::string_view name) {
  return std::string(PISERVE_SOURCE_DIR "/tests/golden/").append(name);
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

nlohmann::json GoldenJson(std::string_view name) {
  return nlohmann::json::parse(ReadFile(GoldenPath(name)));
}

double Number(const nlohmann::json& json) {
  if (json.is_number()) return json.get<double>();
  const std::string word = json.get<std::string>();
  if (word == "NaN") return std::numeric_limits<double>::quiet_NaN();
  if (word == "Infinity") return std::numeric_limits<double>::infinity();
  if (word == "-Infinity") return -std::numeric_limits<double>::infinity();
  throw std::runtime_error("no number: " + word);
}

std::vector<double> Numbers(const nlohmann::json& json) {
  std::vector<double> numbers;
  for (const nlohmann::json& item : json) numbers.push_back(Number(item));
  return numbers;
}

GoldenTensors::GoldenTensors(std::string_view name)
    : file_(ReadFile(GoldenPath(name))) {
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file_.data(), sizeof header_bytes);
  header_ = nlohmann::json::parse(file_.substr(8, header_bytes));
  data_offset_ = 8 + header_bytes;
}

bool GoldenTensors::contains(const std::string& tensor) const {
  return header_.contains(tensor);
}

std::vector<std::int64_t> GoldenTensors::shape(
    const std::string& tensor) const {
  return header_.at(tensor).at("shape").get<std::vector<std::int64_t>>();
}

std::string GoldenTensors::dtype(const std::string& tensor) const {
  return header_.at(tensor).at("dtype");
}

std::string_view GoldenTensors::Bytes(const std::string& tensor,
                                      std::size_t element_bytes) const {
  const nlohmann::json& offsets = header_.at(tensor).at("data_offsets");
  const std::size_t begin = offsets.at(0);
  const std::size_t end = offsets.at(1);
  std::size_t elements = 1;
  for (const std::int64_t side : shape(tensor)) elements *= side;
  if (elements * element_bytes != end - begin) {
    throw std::runtime_error(tensor + ": element type of another size");
  }
  return std::string_view(file_).substr(data_offset_ + begin, end - begin);
}

}  // namespace piserve::test
