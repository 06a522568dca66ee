// SPDX-License-Identifier: Apache-2.0
#include "tests/model/checkpoint/files.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "model/checkpoint/tensor_spec.h"

namespace piserve::checkpoint::test {

TempFolder::TempFolder() {
  std::string pattern =
      (std::filesystem::temp_directory_path() / "checkpoint_XXXXXX").string();
  path_ = mkdtemp(pattern.data());
}

TempFolder::~TempFolder() { std::filesystem::remove_all(path_); }

std::string TempFolder::Write(const std::string& name,
                              std::string_view bytes) const {
  const std::filesystem::path path = std::filesystem::path(path_) / name;
  std::filesystem::create_directories(path.parent_path());
  std::ofstream out(path, std::ios::binary);
  out << bytes;
  return path.string();
}

std::string RawFile(std::string_view header, std::string_view data) {
  std::string file;
  for (int i = 0; i < 8; ++i) {
    file.push_back(static_cast<char>(header.size() >> (8 * i)));
  }
  file += header;
  file += data;
  return file;
}

absl::StatusOr<Safetensors> ParseCopy(std::string_view bytes) {
  const auto copy = std::make_shared<const std::vector<std::byte>>([&] {
    std::vector<std::byte> buffer(bytes.size());
    if (!bytes.empty()) std::memcpy(buffer.data(), bytes.data(), bytes.size());
    return buffer;
  }());
  return Safetensors::Parse(*copy, copy);
}

Variant MicroVariant(bool pi05) {
  Variant variant;
  variant.pi05 = pi05;
  variant.vision = {
      .width = 4, .depth = 2, .heads = 2, .mlp = 5, .patch = 2, .image = 6};
  variant.vlm = {.width = 6,
                 .depth = 2,
                 .mlp = 7,
                 .heads = 4,
                 .kv_heads = 2,
                 .head_dim = 2};
  variant.expert = {.width = 4,
                    .depth = 2,
                    .mlp = 9,
                    .heads = 4,
                    .kv_heads = 2,
                    .head_dim = 2};
  variant.vocab = 11;
  variant.action_dim = 3;
  variant.action_horizon = 5;
  variant.max_token_len = 8;
  return variant;
}

Entry Zeros(std::string name, StoredDType dtype,
            std::vector<std::int64_t> shape) {
  std::size_t bytes = SizeOf(dtype);
  for (const std::int64_t dim : shape) bytes *= dim;
  return {std::move(name), dtype, std::move(shape), std::string(bytes, '\0')};
}

std::vector<Entry> EntriesOf(const Variant& variant) {
  std::vector<Entry> entries;
  for (const TensorSpec& spec : TensorSpecs(variant)) {
    entries.push_back(Zeros(spec.name, StoredDType::kBF16, spec.shape));
  }
  const TensorSpec head = DeadExpertHead(variant);
  entries.push_back(Zeros(head.name, StoredDType::kBF16, head.shape));
  return entries;
}

Entry* FindEntry(std::vector<Entry>& entries, std::string_view name) {
  for (Entry& entry : entries) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

void Remove(std::vector<Entry>& entries, std::string_view name) {
  std::erase_if(entries,
                [&](const Entry& entry) { return entry.name == name; });
}

std::string FileOf(std::vector<Entry> entries) {
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) {
                     return SizeOf(a.dtype) > SizeOf(b.dtype);
                   });
  nlohmann::json header = nlohmann::json::object();
  std::string data;
  for (const Entry& entry : entries) {
    const std::size_t begin = data.size();
    data += entry.data;
    header[entry.name] = {{"dtype", Name(entry.dtype)},
                          {"shape", entry.shape},
                          {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return RawFile(text, data);
}

}  // namespace piserve::checkpoint::test
