// SPDX-License-Identifier: Apache-2.0
// Bytes of a frame -> msgpack -> arrays -> the observation of each robot. What
// is let through borrows only what is there, and a refusal names a field.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>

#include "model/error.h"
#include "server/websocket/observation.h"
#include "tests/server/websocket/packing.h"

namespace {

using piserve::ImageEncoding;
using piserve::ImageView;
using piserve::server::websocket::ObservationReader;
namespace packing = piserve::server::websocket::packing;

void Require(bool condition) {
  if (!condition) std::abort();
}

// Reads every byte, so that one which is not there is found.
unsigned Sum(std::string_view bytes) {
  unsigned sum = 0;
  for (const char c : bytes) sum += static_cast<unsigned char>(c);
  return sum;
}

void CheckImage(const ImageView& image) {
  Require(!image.name.empty());
  if (image.encoding == ImageEncoding::kRgb8) {
    Require(image.width > 0 && image.height > 0);
    Require(image.data.size() == std::size_t{3} * image.width * image.height);
  }
  volatile unsigned sum = Sum(image.data);
  (void)sum;
}

const ObservationReader* Readers() {
  static const auto* const readers = new ObservationReader[3]{
      *ObservationReader::Create(packing::LiberoInfo()),
      *ObservationReader::Create(packing::DroidInfo()),
      *ObservationReader::Create(packing::AlohaInfo())};
  return readers;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const auto message = std::make_shared<const std::string>(
      reinterpret_cast<const char*>(data), size);
  for (int i = 0; i < 3; ++i) {
    const auto request = Readers()[i].Read(*message, message);
    if (!request.ok()) {
      Require(absl::IsInvalidArgument(request.status()));
      Require(piserve::FieldOf(request.status()).has_value());
      Require(piserve::ReasonOf(request.status()).has_value());
      continue;
    }
    Require(request->observation.state.size() == (i == 2 ? 14 : 8));
    for (const ImageView& image : request->observation.images) {
      CheckImage(image);
    }
    if (request->observation.prompt.has_value()) {
      volatile unsigned sum = Sum(*request->observation.prompt);
      (void)sum;
    }
  }
  return 0;
}
