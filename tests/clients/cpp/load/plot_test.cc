// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/load/plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace piserve::load {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

LoadResult Result() {
  LoadResult result;
  for (int i = 0; i < 100; ++i) {
    Sample sample;
    sample.intended = absl::Milliseconds(10 * i);
    sample.answered = sample.intended + absl::Milliseconds(5 + i % 7);
    if (i % 25 == 0) sample.status = absl::UnavailableError("");
    result.samples.push_back(sample);
  }
  return result;
}

std::string PngPath() {
  return (std::filesystem::path(::testing::TempDir()) / "it's.png").string();
}

TEST(Plot, QuotesEndNoString) {
  EXPECT_THAT(PlotScript(Result(), "a'b", absl::ZeroDuration(), "c'd.png"),
              ::testing::AllOf(HasSubstr("title 'a''b'"),
                               HasSubstr("output 'c''d.png'")));
}

TEST(Plot, TheDistributionEndsAtAllAnswers) {
  EXPECT_THAT(PlotScript(Result(), "t", absl::ZeroDuration(), "x.png"),
              HasSubstr("11.0000 100\nEOD"));
}

TEST(Plot, DrawsAPng) {
  if (std::system("command -v gnuplot >/dev/null") != 0) {
    GTEST_SKIP() << "gnuplot is not installed";
  }
  for (const LoadResult& result : {Result(), LoadResult()}) {
    const absl::Status status =
        RunGnuplot(PlotScript(result, "t", absl::ZeroDuration(), PngPath()));
    ASSERT_TRUE(status.ok()) << status;
    std::ifstream file(PngPath(), std::ios::binary);
    const std::string png(std::istreambuf_iterator<char>(file), {});
    EXPECT_THAT(png, StartsWith("\x89PNG"));
    EXPECT_GT(png.size(), 5000u);
  }
}

TEST(Plot, SaysWhatToInstallWhereGnuplotIsMissing) {
  const std::string path = std::getenv("PATH");
  setenv("PATH", "/nowhere", 1);
  const absl::Status status = RunGnuplot("");
  setenv("PATH", path.c_str(), 1);
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("gnuplot-nox"));
}

}  // namespace
}  // namespace piserve::load
