// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/digest.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <thread>
#include <vector>

#include "absl/strings/escaping.h"

namespace piserve::checkpoint {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{64} << 20;
constexpr std::size_t kMaxThreads = 8;

using Hash = std::array<unsigned char, 32>;

bool HashBytes(std::span<const std::byte> bytes, Hash& hash) {
  return EVP_Digest(bytes.data(), bytes.size(), hash.data(), nullptr,
                    EVP_sha256(), nullptr) == 1;
}

}  // namespace

absl::StatusOr<std::string> Sha256(std::span<const std::byte> bytes) {
  Hash hash;
  if (!HashBytes(bytes, hash)) {
    return absl::InternalError("OpenSSL refuses to compute sha256");
  }
  return absl::BytesToHexString(absl::string_view(
      reinterpret_cast<const char*>(hash.data()), hash.size()));
}

absl::StatusOr<std::string> FileDigest(std::span<const std::byte> bytes) {
  const std::size_t pieces = (bytes.size() + kPieceBytes - 1) / kPieceBytes;
  std::vector<Hash> hashes(pieces);
  std::atomic<std::size_t> next = 0;
  std::atomic<bool> ok = true;
  const auto work = [&] {
    for (std::size_t i = next++; i < pieces; i = next++) {
      const std::size_t begin = i * kPieceBytes;
      const std::size_t size = std::min(kPieceBytes, bytes.size() - begin);
      if (!HashBytes(bytes.subspan(begin, size), hashes[i])) ok = false;
    }
  };
  std::vector<std::thread> threads;
  const std::size_t cores = std::max(1u, std::thread::hardware_concurrency());
  const std::size_t workers = std::min({pieces, cores, kMaxThreads});
  for (std::size_t i = 1; i < workers; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  if (!ok) return absl::InternalError("OpenSSL refuses to compute sha256");
  return Sha256(std::as_bytes(std::span(hashes)));
}

}  // namespace piserve::checkpoint
