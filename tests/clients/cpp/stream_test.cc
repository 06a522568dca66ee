// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <map>

#include "absl/strings/str_cat.h"
#include "clients/cpp/piserve/client.h"
#include "clients/cpp/piserve/status.h"
#include "tests/clients/cpp/fake_service.h"

namespace piserve::client {
namespace {

using Answer = absl::StatusOr<ActionChunk>;

v1::InferStreamResponse Result(const v1::InferStreamRequest& request) {
  const std::string& id = request.observation().request_id();
  v1::InferStreamResponse response;
  response.set_request_id(id);
  *response.mutable_result() = FakeResult(id);
  return response;
}

class Stream : public ::testing::Test {
 protected:
  std::unique_ptr<PolicyStream> Open() {
    client_ = *PolicyClient::Connect({.address = service_.address(),
                                      .api_key = "",
                                      .tls = {},
                                      .timeout = absl::Seconds(20),
                                      .clock = &clock_});
    return *client_->OpenStream();
  }
  static std::future<Answer> Send(PolicyStream& stream, const std::string& id,
                                  const CallOptions& call = {}) {
    ObservationIn observation = FakeObservation();
    observation.request_id = id;
    auto promise = std::make_shared<std::promise<Answer>>();
    stream.Send(observation, call, [promise](Answer answer) {
      promise->set_value(std::move(answer));
    });
    return promise->get_future();
  }

  FakeClock clock_;
  FakeService service_;
  std::unique_ptr<PolicyClient> client_;
};

TEST_F(Stream, AnswersInAnyOrderFindTheirRequests) {
  service_.on_stream = [](FakeService::Stream* stream) {
    std::vector<v1::InferStreamRequest> requests(3);
    for (auto& request : requests) stream->Read(&request);
    for (int i : {2, 0, 1}) stream->Write(Result(requests[i]));
    v1::InferStreamRequest last;
    while (stream->Read(&last)) {
    }
    return grpc::Status::OK;
  };
  const auto stream = Open();
  std::map<std::string, std::future<Answer>> answers;
  for (const char* id : {"a", "b", "c"}) answers[id] = Send(*stream, id);
  for (auto& [id, answer] : answers) {
    const Answer got = answer.get();
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(got->request_id, id);
  }
}

TEST_F(Stream, EachRequestCarriesItsTimeout) {
  std::promise<std::uint64_t> timeout;
  service_.on_stream = [&](FakeService::Stream* stream) {
    v1::InferStreamRequest request;
    stream->Read(&request);
    timeout.set_value(request.timeout_us());
    stream->Write(Result(request));
    return grpc::Status::OK;
  };
  const auto stream = Open();
  Send(*stream, "a", {.timeout = absl::Milliseconds(1500)}).wait();
  EXPECT_EQ(timeout.get_future().get(), 1'500'000u);
}

TEST_F(Stream, AnErrorEndsItsRequestOnly) {
  service_.on_stream = [](FakeService::Stream* stream) {
    v1::InferStreamRequest request;
    while (stream->Read(&request)) {
      v1::InferStreamResponse response = Result(request);
      if (response.request_id() == "bad") {
        response.mutable_error()->set_code(3);
        response.mutable_error()->set_message("wrong");
      }
      stream->Write(response);
    }
    return grpc::Status::OK;
  };
  const auto stream = Open();
  auto bad = Send(*stream, "bad");
  auto good = Send(*stream, "good");
  EXPECT_TRUE(absl::IsInvalidArgument(bad.get().status()));
  EXPECT_TRUE(good.get().ok());
}

TEST_F(Stream, AnAnswerAfterItsDeadlineIsDropped) {
  service_.on_stream = [&](FakeService::Stream* stream) {
    v1::InferStreamRequest request;
    stream->Read(&request);
    clock_.Advance(absl::Seconds(21));
    stream->Write(Result(request));
    stream->Read(&request);
    stream->Write(Result(request));
    return grpc::Status::OK;
  };
  const auto stream = Open();
  const Answer late = Send(*stream, "a").get();
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.status()));
  EXPECT_EQ(ErrorReason(late.status()), "LATE_REPLY");
  EXPECT_EQ(stream->dropped_replies(), 1u);
  EXPECT_TRUE(Send(*stream, "b").get().ok());
}

TEST_F(Stream, TheDeadlineAnswersForAServerThatDoesNot) {
  service_.on_stream = [](FakeService::Stream* stream) {
    v1::InferStreamRequest first;
    v1::InferStreamRequest second;
    stream->Read(&first);
    stream->Read(&second);
    stream->Write(Result(first));  // Nobody waits for it any more.
    stream->Write(Result(second));
    return grpc::Status::OK;
  };
  const auto stream = Open();
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      Send(*stream, "a", {.timeout = absl::Milliseconds(50)}).get().status()));
  EXPECT_TRUE(Send(*stream, "b").get().ok());
  EXPECT_EQ(stream->dropped_replies(), 1u);
}

TEST_F(Stream, ALateAnswerIsNotTakenForThatOfALaterRequestOfTheSameId) {
  std::promise<void> third_was_refused;
  const auto refused = third_was_refused.get_future();
  service_.on_stream = [&](FakeService::Stream* stream) {
    v1::InferStreamRequest first;
    v1::InferStreamRequest second;
    stream->Read(&first);
    stream->Read(&second);
    refused.wait();
    v1::InferStreamResponse late;  // of the first
    late.set_request_id(first.observation().request_id());
    late.mutable_error()->set_code(4);
    stream->Write(late);
    stream->Write(Result(second));
    stream->Read(&first);
    stream->Write(Result(first));
    return grpc::Status::OK;
  };
  const auto stream = Open();
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      Send(*stream, "robot", {.timeout = absl::Milliseconds(50)})
          .get()
          .status()));
  auto second = Send(*stream, "robot");
  EXPECT_EQ(ErrorField(Send(*stream, "robot").get().status()), "request_id");
  third_was_refused.set_value();
  const Answer answer = second.get();
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->request_id, "robot");
  EXPECT_EQ(stream->dropped_replies(), 1u);
  const Answer third = Send(*stream, "robot").get();
  ASSERT_TRUE(third.ok()) << third.status();
}

TEST_F(Stream, ABrokenConnectionEndsItsRequestsAndTheNextSendMakesANewOne) {
  int calls = 0;
  service_.on_stream = [&](FakeService::Stream* stream) {
    v1::InferStreamRequest request;
    stream->Read(&request);
    if (++calls == 1) {
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
    }
    stream->Write(Result(request));
    return grpc::Status::OK;
  };
  const auto stream = Open();
  EXPECT_TRUE(absl::IsUnavailable(Send(*stream, "a").get().status()));
  EXPECT_TRUE(Send(*stream, "b").get().ok());
}

TEST_F(Stream, AnAnswerOfAnotherModelIsNeverHandedOver) {
  service_.on_stream = [](FakeService::Stream* stream) {
    v1::InferStreamRequest request;
    while (stream->Read(&request)) {
      v1::InferStreamResponse response = Result(request);
      response.mutable_result()->set_model_digest("digest-2");
      stream->Write(response);
    }
    return grpc::Status::OK;
  };
  const auto stream = Open();
  EXPECT_EQ(ErrorReason(Send(*stream, "a").get().status()), "MODEL_CHANGED");
}

TEST_F(Stream, APolicyThatIsNotTheOneExpectedGetsNoObservation) {
  client_ = *PolicyClient::Connect({.address = service_.address(),
                                    .api_key = "",
                                    .tls = {},
                                    .expect = {.robot = DroidProfile()}});
  const auto stream = *client_->OpenStream();
  EXPECT_EQ(ErrorReason(Send(*stream, "a").get().status()), "CAMERAS_MISMATCH");
}

TEST_F(Stream, WhatCannotBeSentIsAnsweredAtOnce) {
  service_.on_stream = [](FakeService::Stream* stream) {
    v1::InferStreamRequest request;
    while (stream->Read(&request)) {
    }
    return grpc::Status::OK;
  };
  const auto stream = Open();
  ObservationIn misfit = FakeObservation();
  misfit.images.clear();
  Answer answer = ActionChunk();
  stream->Send(misfit, {}, [&](Answer got) { answer = std::move(got); });
  EXPECT_EQ(ErrorField(answer.status()), "images");

  std::vector<std::future<Answer>> waiting;
  for (int i = 0; i < PolicyStream::kMaxInFlight; ++i) {
    waiting.push_back(Send(*stream, absl::StrCat("r", i)));
  }
  EXPECT_TRUE(absl::IsResourceExhausted(Send(*stream, "x").get().status()));
}

TEST_F(Stream, AnIdInFlightIsRefused) {
  service_.on_stream = [](FakeService::Stream* stream) {
    v1::InferStreamRequest request;
    while (stream->Read(&request)) {
    }
    return grpc::Status::OK;
  };
  const auto stream = Open();
  const auto first = Send(*stream, "a");
  EXPECT_EQ(ErrorField(Send(*stream, "a").get().status()), "request_id");
}

TEST_F(Stream, ClosingEndsWhatIsInFlight) {
  service_.on_stream = [](FakeService::Stream* stream) {
    v1::InferStreamRequest request;
    while (stream->Read(&request)) {
    }
    return grpc::Status::OK;
  };
  auto stream = Open();
  auto answer = Send(*stream, "a");
  stream = nullptr;
  EXPECT_TRUE(absl::IsCancelled(answer.get().status()));
}

}  // namespace
}  // namespace piserve::client
