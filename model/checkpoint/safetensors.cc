// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <optional>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/checkpoint/json.h"
#include "model/checkpoint/mapped_file.h"

namespace piserve::checkpoint {
namespace {

using nlohmann::json;

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr std::string_view kMetadata = "__metadata__";

struct DTypeRow {
  StoredDType dtype;
  std::string_view name;
  std::size_t size_bytes;
};

constexpr std::array<DTypeRow, 15> kDTypes = {{
    {StoredDType::kBool, "BOOL", 1},
    {StoredDType::kU8, "U8", 1},
    {StoredDType::kI8, "I8", 1},
    {StoredDType::kF8E5M2, "F8_E5M2", 1},
    {StoredDType::kF8E4M3, "F8_E4M3", 1},
    {StoredDType::kI16, "I16", 2},
    {StoredDType::kU16, "U16", 2},
    {StoredDType::kF16, "F16", 2},
    {StoredDType::kBF16, "BF16", 2},
    {StoredDType::kI32, "I32", 4},
    {StoredDType::kU32, "U32", 4},
    {StoredDType::kF32, "F32", 4},
    {StoredDType::kI64, "I64", 8},
    {StoredDType::kU64, "U64", 8},
    {StoredDType::kF64, "F64", 8},
}};

constexpr bool RowsFollowTheEnum() {
  for (std::size_t i = 0; i < kDTypes.size(); ++i) {
    if (static_cast<std::size_t>(kDTypes[i].dtype) != i) return false;
  }
  return true;
}
static_assert(RowsFollowTheEnum());

const DTypeRow& RowOf(StoredDType dtype) {
  return kDTypes[static_cast<std::size_t>(dtype)];
}

// A tensor as the header tells it; offsets count from the end of the header.
struct Entry {
  StoredTensor tensor;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

absl::Status BadFile(absl::string_view message) {
  return absl::FailedPreconditionError(message);
}

absl::Status BadTensor(std::string_view name, absl::string_view message) {
  return BadFile(absl::StrCat("tensor ", Quoted(name), ": ", message));
}

std::uint64_t ReadLittleEndian64(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (int i = 7; i >= 0; --i) {
    value = value << 8 | std::to_integer<std::uint64_t>(bytes[i]);
  }
  return value;
}

absl::StatusOr<std::string_view> HeaderText(std::span<const std::byte> bytes) {
  if (bytes.size() < kLengthBytes) {
    return BadFile(absl::StrCat("got ", bytes.size(),
                                " bytes, want a header length of 8 bytes"));
  }
  const std::uint64_t length = ReadLittleEndian64(bytes);
  if (length > kMaxHeaderBytes) {
    return BadFile(absl::StrCat("header length: got ", length,
                                ", want at most ", kMaxHeaderBytes));
  }
  if (length > bytes.size() - kLengthBytes) {
    return BadFile(absl::StrCat("truncated: want a header of ", length,
                                " bytes, got ", bytes.size() - kLengthBytes));
  }
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  const std::string_view header(text + kLengthBytes, length);
  if (!header.starts_with('{')) return BadFile("header: want a JSON object");
  return header;
}

absl::StatusOr<StoredDType> ReadDType(const json& info) {
  absl::StatusOr<const json*> field = Field(info, "", "dtype");
  if (!field.ok()) return field.status();
  const auto* name = (*field)->get_ptr<const std::string*>();
  for (const DTypeRow& row : kDTypes) {
    if (name != nullptr && *name == row.name) return row.dtype;
  }
  return BadFile(absl::StrCat(
      "dtype: got ", name != nullptr ? Quoted(*name) : DescribeJson(**field),
      ", want one that safetensors defines"));
}

// The elements of a list of integers in [0, 2^63), nullopt for anything else.
std::optional<std::vector<std::int64_t>> ReadIntegers(const json& list) {
  if (!list.is_array()) return std::nullopt;
  std::vector<std::int64_t> values;
  for (const json& element : list) {
    if (!element.is_number_unsigned()) return std::nullopt;
    const auto value = element.get<std::uint64_t>();
    if (value > INT64_MAX) return std::nullopt;
    values.push_back(static_cast<std::int64_t>(value));
  }
  return values;
}

absl::StatusOr<std::vector<std::int64_t>> ReadIntegerField(
    const json& info, std::string_view name) {
  absl::StatusOr<const json*> field = Field(info, "", name);
  if (!field.ok()) return field.status();
  std::optional<std::vector<std::int64_t>> values = ReadIntegers(**field);
  if (values.has_value()) return *std::move(values);
  return BadFile(absl::StrCat(std::string(name),
                              ": want a list of integers from 0 to 2^63-1"));
}

// nullopt if the product does not fit.
std::optional<std::uint64_t> BytesOf(const StoredTensor& tensor) {
  std::uint64_t bytes = SizeOf(tensor.dtype);
  for (const std::int64_t dim : tensor.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(dim),
                               &bytes)) {
      return std::nullopt;
    }
  }
  return bytes;
}

absl::StatusOr<Entry> ReadEntry(const json& info) {
  Entry entry;
  absl::StatusOr<StoredDType> dtype = ReadDType(info);
  if (!dtype.ok()) return dtype.status();
  auto shape = ReadIntegerField(info, "shape");
  if (!shape.ok()) return shape.status();
  auto offsets = ReadIntegerField(info, "data_offsets");
  if (!offsets.ok()) return offsets.status();
  if (offsets->size() != 2) {
    return BadFile(absl::StrCat("data_offsets: got ", offsets->size(),
                                " numbers, want 2"));
  }
  entry.tensor.dtype = *dtype;
  entry.tensor.shape = *std::move(shape);
  entry.begin = static_cast<std::uint64_t>(offsets->at(0));
  entry.end = static_cast<std::uint64_t>(offsets->at(1));
  return entry;
}

// Whether an entry by itself fits into a file whose data starts at byte
// `data_start` and has `data_bytes`.
absl::Status CheckEntry(const Entry& entry, std::uint64_t data_start,
                        std::uint64_t data_bytes) {
  const StoredTensor& tensor = entry.tensor;
  const std::string range =
      absl::StrCat("bytes ", entry.begin, " to ", entry.end);
  if (entry.end < entry.begin) {
    return BadFile(
        absl::StrCat("got ", range, ", want an end after the begin"));
  }
  if (entry.end > data_bytes) {
    return BadFile(absl::StrCat("got ", range, ", but the file has only ",
                                data_bytes, " bytes of data (truncated?)"));
  }
  const std::optional<std::uint64_t> want = BytesOf(tensor);
  if (want != entry.end - entry.begin) {
    return BadFile(
        absl::StrCat("got ", entry.end - entry.begin, " bytes, want ",
                     want.has_value() ? absl::StrCat(*want) : "more than 2^64",
                     " for ", Describe(tensor.dtype, tensor.shape)));
  }
  const std::size_t alignment = SizeOf(tensor.dtype);
  if ((data_start + entry.begin) % alignment != 0 && entry.end > entry.begin) {
    return BadFile(absl::StrCat("starts at byte ", data_start + entry.begin,
                                " of the file, want a multiple of ",
                                alignment));
  }
  return absl::OkStatus();
}

// Whether the entries, sorted by their data, tile it.
absl::Status CheckTiling(std::span<const Entry> entries,
                         std::uint64_t data_bytes) {
  std::uint64_t cursor = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != cursor) {
      return BadTensor(
          entry.tensor.name,
          absl::StrCat(entry.begin < cursor ? "overlaps the tensor before it"
                                            : "leaves a hole before it",
                       ": starts at byte ", entry.begin, ", want ", cursor));
    }
    cursor = entry.end;
  }
  if (cursor != data_bytes) {
    return BadFile(absl::StrCat("got ", data_bytes - cursor,
                                " bytes after the last tensor, want none"));
  }
  return absl::OkStatus();
}

absl::Status CheckMetadata(const json& object) {
  if (!object.is_object()) return BadFile("__metadata__: want an object");
  for (const auto& [key, value] : object.items()) {
    if (value.is_string()) continue;
    return BadFile(absl::StrCat("__metadata__.", Quoted(key), ": got ",
                                DescribeJson(value), ", want a string"));
  }
  return absl::OkStatus();
}

// All entries in the order of their data, each checked and given its span.
absl::StatusOr<std::vector<Entry>> ReadEntries(const json& header,
                                               std::span<const std::byte> bytes,
                                               std::uint64_t data_start) {
  const std::uint64_t data_bytes = bytes.size() - data_start;
  std::vector<Entry> entries;
  for (const auto& [name, info] : header.items()) {
    if (name == kMetadata) continue;
    absl::StatusOr<Entry> entry = ReadEntry(info);
    absl::Status status = entry.ok()
                              ? CheckEntry(*entry, data_start, data_bytes)
                              : entry.status();
    if (!status.ok()) return BadTensor(name, status.message());
    entry->tensor.name = name;
    entry->tensor.data =
        bytes.subspan(data_start + entry->begin, entry->end - entry->begin);
    entries.push_back(*std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.tensor.name) <
           std::tie(b.begin, b.end, b.tensor.name);
  });
  if (absl::Status s = CheckTiling(entries, data_bytes); !s.ok()) return s;
  return entries;
}

}  // namespace

std::string_view Name(StoredDType dtype) { return RowOf(dtype).name; }

std::size_t SizeOf(StoredDType dtype) { return RowOf(dtype).size_bytes; }

std::string Describe(StoredDType dtype, std::span<const std::int64_t> shape) {
  return absl::StrCat(std::string(Name(dtype)), " [",
                      absl::StrJoin(shape, ", "), "]");
}

absl::StatusOr<Safetensors> Safetensors::Open(const std::string& path) {
  absl::StatusOr<MappedFile> file = MapFile(path);
  if (!file.ok()) return file.status();
  return Parse(file->bytes, file->owner);
}

absl::StatusOr<Safetensors> Safetensors::Parse(
    std::span<const std::byte> bytes, std::shared_ptr<const void> owner) {
  absl::StatusOr<std::string_view> text = HeaderText(bytes);
  if (!text.ok()) return text.status();
  absl::StatusOr<json> header = ParseJson(*text);
  if (!header.ok()) {
    return BadFile(absl::StrCat("header: ", header.status().message()));
  }
  if (const auto it = header->find(kMetadata); it != header->end()) {
    if (absl::Status s = CheckMetadata(*it); !s.ok()) return s;
  }
  auto entries = ReadEntries(*header, bytes, kLengthBytes + text->size());
  if (!entries.ok()) return entries.status();
  Safetensors file;
  for (Entry& entry : *entries) {
    file.index_[entry.tensor.name] = file.tensors_.size();
    file.tensors_.push_back(std::move(entry.tensor));
  }
  file.bytes_ = bytes;
  file.owner_ = std::move(owner);
  return file;
}

const StoredTensor* Safetensors::Find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

}  // namespace piserve::checkpoint
