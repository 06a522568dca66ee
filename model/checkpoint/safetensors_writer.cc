// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/safetensors_writer.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "model/checkpoint/json.h"

namespace piserve::checkpoint {
namespace {

std::uint64_t BytesOf(const SafetensorsWriter::Header& header) {
  std::uint64_t bytes = SizeOf(header.dtype);
  for (const std::int64_t dim : header.shape) bytes *= dim;
  return bytes;
}

// The JSON, padded with spaces so that the data starts at a multiple of 8.
std::string HeaderText(const std::vector<SafetensorsWriter::Header>& headers,
                       const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!metadata.empty()) json["__metadata__"] = metadata;
  std::uint64_t begin = 0;
  for (const SafetensorsWriter::Header& header : headers) {
    const std::uint64_t end = begin + BytesOf(header);
    json[header.name] = {{"dtype", Name(header.dtype)},
                         {"shape", header.shape},
                         {"data_offsets", {begin, end}}};
    begin = end;
  }
  std::string text =
      json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

std::string LittleEndian64(std::uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) {
    bytes.push_back(static_cast<char>(value >> (8 * i)));
  }
  return bytes;
}

}  // namespace

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(
    const std::string& path, std::vector<Header> headers,
    const std::map<std::string, std::string>& metadata) {
  SafetensorsWriter writer;
  writer.out_.open(path, std::ios::binary | std::ios::trunc);
  if (!writer.out_) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": cannot write"));
  }
  const std::string text = HeaderText(headers, metadata);
  writer.out_ << LittleEndian64(text.size()) << text;
  writer.headers_ = std::move(headers);
  return writer;
}

absl::Status SafetensorsWriter::Append(std::span<const std::byte> data) {
  if (next_ == headers_.size()) {
    return absl::InvalidArgumentError("got one tensor more than headers");
  }
  const Header& header = headers_[next_++];
  if (data.size() != BytesOf(header)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", Quoted(header.name), ": got ", data.size(),
                     " bytes, want ", BytesOf(header)));
  }
  out_.write(reinterpret_cast<const char*>(data.data()),
             static_cast<std::streamsize>(data.size()));
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Finish() {
  if (next_ != headers_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("got ", next_, " tensors, want ", headers_.size()));
  }
  out_.close();
  if (!out_) return absl::UnavailableError("the disk refused to write");
  return absl::OkStatus();
}

}  // namespace piserve::checkpoint
