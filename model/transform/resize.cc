// SPDX-License-Identifier: Apache-2.0
#include "model/transform/resize.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <vector>

namespace piserve::transform {
namespace {

constexpr int kChannels = 3;
constexpr int kPrecisionBits = 22;  // Pillow's PRECISION_BITS: 32 - 8 - 2
constexpr std::int32_t kRound = 1 << (kPrecisionBits - 1);

// Weights of one axis: output i is the sum over j < count[i] of
// weight[i * taps + j] * input[first[i] + j], in fixed point.
struct Filter {
  int taps = 0;
  std::vector<int> first;
  std::vector<int> count;
  std::vector<std::int32_t> weight;
};

double Triangle(double t) { return std::max(0.0, 1.0 - std::abs(t)); }

Filter MakeFilter(int in, int out) {
  const double scale = static_cast<double>(in) / out;
  const double filter_scale = std::max(scale, 1.0);
  const double support = filter_scale;
  Filter filter;
  filter.taps = static_cast<int>(std::ceil(support)) * 2 + 1;
  filter.first.resize(out);
  filter.count.resize(out);
  filter.weight.resize(static_cast<std::size_t>(out) * filter.taps);
  std::vector<double> exact(filter.taps);
  for (int i = 0; i < out; ++i) {
    const double center = (i + 0.5) * scale;
    const int low = std::max(0, static_cast<int>(center - support + 0.5));
    const int high = std::min(in, static_cast<int>(center + support + 0.5));
    double sum = 0;
    for (int j = 0; j < high - low; ++j) {
      exact[j] = Triangle((j + low - center + 0.5) * (1.0 / filter_scale));
      sum += exact[j];
    }
    for (int j = 0; j < high - low; ++j) {
      const double normal = sum != 0.0 ? exact[j] / sum : exact[j];
      filter.weight[static_cast<std::size_t>(i) * filter.taps + j] =
          static_cast<std::int32_t>(0.5 + normal * (1 << kPrecisionBits));
    }
    filter.first[i] = low;
    filter.count[i] = high - low;
  }
  return filter;
}

std::uint8_t Round(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255));
}

// [height, filter's input, 3] to [height, filter's output, 3].
std::vector<std::uint8_t> ResizeRows(const std::uint8_t* from, int height,
                                     int width, const Filter& filter) {
  const int out_width = static_cast<int>(filter.first.size());
  std::vector<std::uint8_t> to(static_cast<std::size_t>(height) * out_width *
                               kChannels);
  std::uint8_t* pixel = to.data();
  for (int y = 0; y < height; ++y) {
    const std::uint8_t* row =
        from + static_cast<std::size_t>(y) * width * kChannels;
    for (int x = 0; x < out_width; ++x, pixel += kChannels) {
      const std::uint8_t* in = row + filter.first[x] * kChannels;
      const std::int32_t* weight =
          &filter.weight[static_cast<std::size_t>(x) * filter.taps];
      std::int32_t red = kRound, green = kRound, blue = kRound;
      for (int j = 0; j < filter.count[x]; ++j, in += kChannels) {
        red += in[0] * weight[j];
        green += in[1] * weight[j];
        blue += in[2] * weight[j];
      }
      pixel[0] = Round(red);
      pixel[1] = Round(green);
      pixel[2] = Round(blue);
    }
  }
  return to;
}

// [filter's input, row_bytes] to [filter's output, row_bytes]. Sums run over
// whole rows, so that the inner loop vectorises.
std::vector<std::uint8_t> ResizeColumns(const std::uint8_t* from,
                                        std::size_t row_bytes,
                                        const Filter& filter) {
  std::vector<std::uint8_t> to(filter.first.size() * row_bytes);
  std::vector<std::int32_t> sums(row_bytes);
  for (std::size_t y = 0; y < filter.first.size(); ++y) {
    std::fill(sums.begin(), sums.end(), kRound);
    for (int j = 0; j < filter.count[y]; ++j) {
      const std::int32_t weight = filter.weight[y * filter.taps + j];
      const std::uint8_t* row = from + (filter.first[y] + j) * row_bytes;
      for (std::size_t x = 0; x < row_bytes; ++x) sums[x] += row[x] * weight;
    }
    std::transform(sums.begin(), sums.end(), &to[y * row_bytes], Round);
  }
  return to;
}

// Copies an image onto the middle of a black canvas.
void Paste(const std::uint8_t* image, ImageSize size, ImageSize canvas,
           std::span<std::uint8_t> to) {
  const int left = (canvas.width - size.width) / 2;
  const int top = (canvas.height - size.height) / 2;
  const std::size_t row_bytes = std::size_t{kChannels} * size.width;
  std::fill(to.begin(), to.end(), std::uint8_t{0});
  for (int y = 0; y < size.height; ++y) {
    std::memcpy(&to[(static_cast<std::size_t>(top + y) * canvas.width + left) *
                    kChannels],
                image + y * row_bytes, row_bytes);
  }
}

}  // namespace

ImageSize FitInside(ImageSize from, ImageSize canvas) {
  const double ratio =
      std::max(static_cast<double>(from.width) / canvas.width,
               static_cast<double>(from.height) / canvas.height);
  return {.width = static_cast<int>(from.width / ratio),
          .height = static_cast<int>(from.height / ratio)};
}

void ResizeWithPad(std::span<const std::uint8_t> from, ImageSize from_size,
                   ImageSize canvas, std::span<std::uint8_t> to) {
  assert(from.size() ==
         std::size_t{kChannels} * from_size.width * from_size.height);
  assert(to.size() == std::size_t{kChannels} * canvas.width * canvas.height);
  const ImageSize size = FitInside(from_size, canvas);
  assert(size.width > 0 && size.height > 0);
  const std::uint8_t* image = from.data();
  std::vector<std::uint8_t> narrowed;
  std::vector<std::uint8_t> shortened;
  if (size.width != from_size.width) {
    narrowed = ResizeRows(image, from_size.height, from_size.width,
                          MakeFilter(from_size.width, size.width));
    image = narrowed.data();
  }
  if (size.height != from_size.height) {
    shortened = ResizeColumns(image, std::size_t{kChannels} * size.width,
                              MakeFilter(from_size.height, size.height));
    image = shortened.data();
  }
  Paste(image, size, canvas, to);
}

}  // namespace piserve::transform
