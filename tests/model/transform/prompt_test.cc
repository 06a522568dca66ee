// SPDX-License-Identifier: Apache-2.0
#include "model/transform/prompt.h"

#include <gtest/gtest.h>

#include "model/error.h"
#include "tests/support/golden.h"

namespace piserve::transform {
namespace {

using namespace std::string_view_literals;  // for texts with NUL inside

std::unique_ptr<const Tokenizer> TinyTokenizer() {
  auto tokenizer = Tokenizer::Load(test::GoldenPath("tokenizer/tiny.model"));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TEST(Prompt, TokensEqualOpenpis) {
  const auto tokenizer = TinyTokenizer();
  const auto golden = test::GoldenJson("tokenizer/tokens.json");
  ASSERT_EQ(golden.at("cases").size(), 66);
  for (const auto& c : golden.at("cases")) {
    const std::string prompt = c.at("prompt");
    auto tokens =
        c.at("state").is_null()
            ? TokenizePi0(*tokenizer, prompt)
            : TokenizePi05(*tokenizer, prompt, test::Numbers(c.at("state")));
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    // These goldens include openpi's silent cut.
    if (tokens->size() > c.at("max_len")) tokens->resize(c.at("max_len"));
    EXPECT_EQ(*tokens, c.at("tokens").get<std::vector<std::int32_t>>())
        << c.at("prompt");
  }
}

TEST(Prompt, StateBinsEqualOpenpis) {
  const auto golden = test::GoldenJson("tokenizer/tokens.json");
  for (const auto& pair : golden.at("digitize")) {
    EXPECT_EQ(DigitizeState(test::Number(pair[0])), pair[1].get<int>()) << pair;
  }
  EXPECT_EQ(DigitizeState(1e308), 255);
  EXPECT_EQ(DigitizeState(-1e308), -1);
}

TEST(Prompt, SpaceOfUnicodeIsStrippedAsPythonDoes) {
  // Everything that Python 3.11's str.isspace accepts.
  const std::string all =
      "\t\n\v\f\r\x1c\x1d\x1e\x1f \u0085\u00a0\u1680\u2000\u2001\u2002\u2003"
      "\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f"
      "\u3000";
  EXPECT_EQ(CleanPrompt(all + "a b" + all), "a b");
  EXPECT_EQ(CleanPrompt(all), "");
  // Zero-width space and the byte order mark are none.
  EXPECT_EQ(CleanPrompt("\u200ba\ufeff"), "\u200ba\ufeff");
}

TEST(Prompt, UnderscoresAndLineFeedsBecomeSpacesAfterStripping) {
  EXPECT_EQ(CleanPrompt("_a_b\nc_"), " a b c ");
  EXPECT_EQ(CleanPrompt(" \n_\n "), " ");
}

TEST(Prompt, OnlyShortUtf8WithoutNulIsTaken) {
  EXPECT_TRUE(CheckPrompt("").ok());
  EXPECT_TRUE(CheckPrompt("naïve 机器人 🤖").ok());
  EXPECT_TRUE(CheckPrompt(std::string(1024, 'a')).ok());
  EXPECT_TRUE(CheckPrompt("\xf4\x8f\xbf\xbf").ok());  // U+10FFFF

  EXPECT_EQ(ReasonOf(CheckPrompt(std::string(1025, 'a'))), "PROMPT_TOO_LONG");
  EXPECT_EQ(ReasonOf(CheckPrompt("a\0b"sv)), "PROMPT_HAS_NUL");
  for (const char* bytes :
       {"\x80", "\xc3", "\xc3(", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80",
        "\xf0\x80\x80\xaf", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80",
        "\xe2\x82", "ok\xff"}) {
    const absl::Status status = CheckPrompt(bytes);
    EXPECT_EQ(ReasonOf(status), "PROMPT_NOT_UTF8");
    EXPECT_EQ(FieldOf(status), "prompt");
  }
}

TEST(Tokenizer, AFileThatIsNoModelIsRefused) {
  EXPECT_EQ(Tokenizer::Load("/nonexistent/tokenizer.model").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(Tokenizer::Load(testing::TempDir()).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(Tokenizer::Parse("no model").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Tokenizer::Parse("").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Tokenizer, ReportsTheSha256OfItsFile) {
  EXPECT_EQ(TinyTokenizer()->sha256(),
            "f934c8a31e2d17b210d96df8aacd3890"
            "87bd25dd5e210881ab6c6e3fc150a01a");
}

}  // namespace
}  // namespace piserve::transform
