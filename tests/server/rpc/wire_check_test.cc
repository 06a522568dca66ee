// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/wire_check.h"

#include <string>

#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "gtest/gtest.h"
#include "model/error.h"
#include "piserve/v1/policy.pb.h"

namespace piserve::server::rpc {
namespace {

absl::Status Check(const std::string& bytes, std::string* id = nullptr) {
  std::string ignored;
  google::protobuf::io::ArrayInputStream input(bytes.data(),
                                               static_cast<int>(bytes.size()));
  return CheckWire(input, *v1::InferRequest::descriptor(),
                   id == nullptr ? &ignored : id);
}

// `observation` as a field of InferRequest.
std::string Wrapped(const std::string& observation) {
  std::string out = "\x0a";
  std::size_t size = observation.size();
  for (; size >= 0x80; size >>= 7) out += static_cast<char>(size | 0x80);
  return out + static_cast<char>(size) + observation;
}

void ExpectRefused(const std::string& bytes, const char* field,
                   const char* reason) {
  const absl::Status status = Check(bytes);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(FieldOf(status), field) << status;
  EXPECT_EQ(ReasonOf(status), reason) << status;
}

// Every field, so that no wire type is refused by mistake.
v1::ObservationRequest Full() {
  v1::ObservationRequest o;
  o.set_policy("p");
  o.set_model_digest("d");
  o.set_request_id("r");
  o.set_robot_id("b");
  o.set_episode_id("e");
  o.set_sequence(1);
  o.set_class_(v1::REQUEST_CLASS_BULK);
  o.set_supersede_older(true);
  o.set_age_us(1);
  o.set_max_age_us(1);
  o.set_traceparent("t");
  o.set_prompt("\xc3\xa4");
  o.add_state(1);
  o.add_state(2);
  v1::Image* image = o.add_images();
  image->set_name("n");
  image->set_encoding(v1::IMAGE_ENCODING_RGB8);
  image->set_width(1);
  image->set_height(1);
  image->set_data("\xff\xff\xff");
  o.mutable_noise()->set_dtype(v1::DATA_TYPE_FLOAT32);
  o.mutable_noise()->add_shape(1);
  o.mutable_noise()->set_data("1234");
  o.set_num_steps(1);
  o.mutable_action_prefix()->mutable_actions()->set_data("x");
  o.mutable_action_prefix()->set_delay_steps(1);
  return o;
}

TEST(CheckWire, LetsEveryKnownFieldThrough) {
  v1::InferRequest request;
  *request.mutable_observation() = Full();
  std::string id;
  EXPECT_TRUE(Check(request.SerializeAsString(), &id).ok());
  EXPECT_EQ(id, "r");
  EXPECT_TRUE(Check("").ok());
}

TEST(CheckWire, LetsUnpackedNumbersThrough) {
  // state (13) as single doubles.
  EXPECT_TRUE(Check(Wrapped(std::string("\x69") + std::string(8, '\0') +
                            "\x69" + std::string(8, '\0')))
                  .ok());
}

TEST(CheckWire, RefusesFieldsItDoesNotKnow) {
  ExpectRefused(Wrapped("\xf8\x06\x01"), "#111", "UNKNOWN_FIELD");
  ExpectRefused("\x10\x01", "#2", "UNKNOWN_FIELD");
  // request_id (3) as a number.
  ExpectRefused(Wrapped("\x18\x01"), "#3", "UNKNOWN_FIELD");
  // A group.
  ExpectRefused(Wrapped("\xfb\x06\xfc\x06"), "#111", "UNKNOWN_FIELD");
}

TEST(CheckWire, RefusesTextThatIsNotUtf8ByItsField) {
  ExpectRefused(Wrapped("\x62\x02\xff\xfe"), "prompt", "NOT_UTF8");
  // images[1].name, behind an empty images[0].
  ExpectRefused(Wrapped(std::string("\x72\x00\x72\x03\x0a\x01\x80", 7)),
                "images[1].name", "NOT_UTF8");
}

TEST(CheckWire, RefusesNoiseAndSeedBoth) {
  v1::ObservationRequest noise, seed;
  noise.mutable_noise()->set_data("1234");
  seed.set_seed(1);
  ExpectRefused(Wrapped(noise.SerializeAsString() + seed.SerializeAsString()),
                "seed", "DOUBLED_FIELD");
  ExpectRefused(Wrapped(seed.SerializeAsString() + noise.SerializeAsString()),
                "noise", "DOUBLED_FIELD");
}

TEST(CheckWire, RefusesMessagesGivenTwice) {
  v1::InferRequest request;
  *request.mutable_observation() = Full();
  const std::string once = request.SerializeAsString();
  ExpectRefused(once + once, "observation", "DOUBLED_FIELD");
}

TEST(CheckWire, RefusesFloodsOfEmptyMessages) {
  std::string images;
  for (int i = 0; i < kMaxElements; ++i) images += std::string("\x72\x00", 2);
  EXPECT_TRUE(Check(Wrapped(images)).ok());
  ExpectRefused(Wrapped(images + std::string("\x72\x00", 2)), "images",
                "TOO_MANY");
}

TEST(CheckWire, RefusesEveryTruncation) {
  v1::InferRequest request;
  *request.mutable_observation() = Full();
  const std::string whole = request.SerializeAsString();
  for (std::size_t size = 1; size < whole.size(); ++size) {
    // The outer length promises more than is there, so each is malformed.
    EXPECT_EQ(ReasonOf(Check(whole.substr(0, size))), "MALFORMED_MESSAGE")
        << size;
  }
}

TEST(CheckWire, RefusesBytesThatAreNoProtobuf) {
  EXPECT_FALSE(Check(std::string(100, '\xff')).ok());
  EXPECT_FALSE(Check(std::string(100, '\0')).ok());
  // A length beyond an int.
  ExpectRefused("\x0a\xff\xff\xff\xff\x0f", "message", "MALFORMED_MESSAGE");
}

TEST(CheckWire, TellsTheIdOfWhatItRefuses) {
  v1::ObservationRequest o;
  o.set_request_id("mine");
  std::string id;
  EXPECT_FALSE(
      Check(Wrapped(o.SerializeAsString() + "\xf8\x06\x01"), &id).ok());
  EXPECT_EQ(id, "mine");
}

}  // namespace
}  // namespace piserve::server::rpc
