// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/auth.h"

#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "model/error.h"

namespace piserve::server::rpc {
namespace {

// sha256 of "open sesame" and of "swordfish", by sha256sum.
constexpr char kSesame[] =
    "41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb";
constexpr char kSwordfish[] =
    "B9F195C5CC7EF6AFADBFBC42892AD47D3B24C6BC94BB510C4564A90A14E8B799";

Authenticator Two() {
  auto authenticator = Authenticator::Create(
      {{"lab", kSesame, {}}, {"guest", kSwordfish, {"pi05_libero"}}});
  EXPECT_TRUE(authenticator.ok()) << authenticator.status();
  return *std::move(authenticator);
}

TEST(Authenticator, WithoutKeysLetsEveryoneIn) {
  const auto authenticator = Authenticator::Create({});
  ASSERT_TRUE(authenticator.ok());
  for (const std::optional<absl::string_view> header :
       {std::optional<absl::string_view>(),
        std::optional<absl::string_view>("Bearer x")}) {
    const auto identity = authenticator->Authenticate(header);
    ASSERT_TRUE(identity.ok());
    EXPECT_EQ(identity->name, "");
    EXPECT_TRUE(identity->MayUse("anything"));
  }
}

TEST(Authenticator, KnowsKeysUnderBothSchemesInAnyCase) {
  const Authenticator authenticator = Two();
  for (const char* header : {"Bearer open sesame", "bearer open sesame",
                             "Api-Key open sesame", "API-KEY  open sesame "}) {
    const auto identity = authenticator.Authenticate(header);
    ASSERT_TRUE(identity.ok()) << header << ": " << identity.status();
    EXPECT_EQ(identity->name, "lab");
  }
  const auto guest = authenticator.Authenticate("Bearer swordfish");
  ASSERT_TRUE(guest.ok());
  EXPECT_EQ(guest->name, "guest");
  EXPECT_TRUE(guest->MayUse("pi05_libero"));
  EXPECT_FALSE(guest->MayUse("pi0_aloha"));
}

TEST(Authenticator, RefusesEverythingElse) {
  const Authenticator authenticator = Two();
  for (const char* header :
       {"", "Bearer", "Bearer ", "Bearer open sesam", "Bearer open sesame2",
        "Basic open sesame", "open sesame", kSesame,
        "Bearer "
        "41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb"}) {
    const absl::Status status = authenticator.Authenticate(header).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << header;
    EXPECT_EQ(ReasonOf(status), "BAD_CREDENTIAL") << header;
  }
  const absl::Status status = authenticator.Authenticate(std::nullopt).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(ReasonOf(status), "NO_CREDENTIAL");
}

TEST(Authenticator, RefusesKeysThatCannotBeMeant) {
  for (const std::vector<ApiKey>& keys : std::vector<std::vector<ApiKey>>{
           {{"", kSesame, {}}},
           {{"lab", "", {}}},
           {{"lab", std::string(63, 'a'), {}}},
           {{"lab", std::string(64, 'g'), {}}},
           {{"lab", kSesame, {}}, {"guest", kSesame, {}}}}) {
    EXPECT_EQ(Authenticator::Create(keys).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(Authorize, JudgesThePolicyThatIsMeant) {
  const Identity guest{"guest", {"pi05_libero"}};
  EXPECT_TRUE(Authorize(guest, "pi05_libero", "").ok());
  EXPECT_TRUE(Authorize(guest, "", "pi05_libero").ok());
  EXPECT_TRUE(Authorize(guest, "", "").ok());
  for (const absl::Status& status :
       {Authorize(guest, "pi0_aloha", "pi05_libero"),
        Authorize(guest, "", "pi0_aloha")}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
    EXPECT_EQ(ReasonOf(status), "POLICY_NOT_ALLOWED");
  }
}

}  // namespace
}  // namespace piserve::server::rpc
