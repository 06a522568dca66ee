// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/digest.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace piserve::checkpoint {
namespace {

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

// The digest of an empty string and of "abc": FIPS 180-2.
TEST(DigestTest, Sha256IsTheStandards) {
  EXPECT_EQ(Sha256(Bytes("")).value(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256(Bytes("abc")).value(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

// sha256sum of the bytes of the digest of "abc".
TEST(DigestTest, AFileOfOnePieceHasTheDigestOfItsDigest) {
  EXPECT_EQ(FileDigest(Bytes("abc")).value(),
            "4f8b42c22dd3729b519ba6f68d2da7cc5b2d606d05daed5ad5128cc03e6c6358");
}

// By the command in the header, over 64 MiB and three bytes of zeros.
TEST(DigestTest, PiecesOf64MiBAreHashedApart) {
  const std::vector<std::byte> zeros((64 << 20) + 3);
  EXPECT_EQ(FileDigest(zeros).value(),
            "91e5078e4ece856d0cdca82042573deff29db12e4e09776e5e057352c2643859");
}

}  // namespace
}  // namespace piserve::checkpoint
