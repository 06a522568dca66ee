// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

namespace piserve::client {

// Bytes that several may hold and nobody changes. An image is handed to gRPC as
// it lies in memory, which may need it a little longer than the call lasts; so
// sending costs no copy of it.
class Bytes {
 public:
  Bytes() : Bytes(std::string()) {}
  Bytes(std::string bytes)
      : bytes_(std::make_shared<const std::string>(std::move(bytes))) {}
  Bytes(const char* text) : Bytes(std::string(text)) {}

  const std::string& str() const { return *bytes_; }
  std::size_t size() const { return bytes_->size(); }
  const std::shared_ptr<const std::string>& shared() const { return bytes_; }

 private:
  std::shared_ptr<const std::string> bytes_;
};

}  // namespace piserve::client
