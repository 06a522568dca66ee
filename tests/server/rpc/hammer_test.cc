// SPDX-License-Identifier: Apache-2.0
// Many clients that cancel, hang up and half-close at awkward moments, over an
// Inference that answers from several threads: each request has exactly one
// final status, on the client's side and in the books of the server.
#include <atomic>
#include <chrono>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/server/rpc/rpc_fixture.h"

namespace piserve::server::rpc {
namespace {

// Answers from its own threads, in random order, after up to 2 ms; a request
// that is cancelled while it waits is answered CANCELLED at once.
class ThreadedInference final : public Inference {
 public:
  ThreadedInference() {
    for (int i = 0; i < 3; ++i) threads_.emplace_back([this, i] { Work(i); });
  }
  ~ThreadedInference() override {
    {
      batching::MutexLock lock(mutex_);
      stopping_ = true;
      changed_.NotifyAll();
    }
    for (std::thread& thread : threads_) thread.join();
  }

  Cancel Start(InferenceRequest request, Done done) override {
    auto job = std::make_shared<Job>();
    job->request = std::move(request);
    job->done = std::move(done);
    batching::MutexLock lock(mutex_);
    jobs_.push_back(job);
    changed_.NotifyAll();
    return [job] { Job::Finish(*job, absl::CancelledError("cancelled")); };
  }

  int answered() const { return answered_; }

 private:
  struct Job {
    InferenceRequest request;
    Done done;
    std::atomic<bool> taken = false;

    static bool Finish(Job& job, absl::StatusOr<InferenceReply> reply) {
      if (job.taken.exchange(true)) return false;
      job.done(std::move(reply));
      return true;
    }
  };

  void Work(int seed) {
    std::mt19937 random(seed);
    while (true) {
      std::shared_ptr<Job> job;
      {
        batching::MutexLock lock(mutex_);
        while (jobs_.empty() && !stopping_) changed_.Wait(mutex_);
        if (jobs_.empty()) return;
        const std::size_t pick = random() % jobs_.size();
        job = jobs_[pick];
        jobs_.erase(jobs_.begin() + static_cast<std::ptrdiff_t>(pick));
      }
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 2000));
      answered_ += Job::Finish(*job, ReplyTo(job->request));
    }
  }

  batching::Mutex mutex_;
  batching::CondVar changed_;
  std::deque<std::shared_ptr<Job>> jobs_;
  bool stopping_ = false;
  std::atomic<int> answered_ = 0;
  std::vector<std::thread> threads_;
};

class HammerTest : public testing::Test {
 protected:
  static constexpr int kClients = 6;
  static constexpr auto kTime = std::chrono::seconds(4);

  HammerTest() {
    ListenerOptions options;
    options.public_address = "127.0.0.1:0";
    options.probe_address = "127.0.0.1:0";
    options.admin_address = "127.0.0.1:0";
    authenticator_ = *Authenticator::Create({});
    listeners_ = *Listeners::Create(options,
                                    {inference_, directory_, observer_,
                                     authenticator_, batching::Clock::Real()},
                                    control_);
    channel_ = grpc::CreateChannel(
        "127.0.0.1:" + std::to_string(listeners_->public_port()),
        grpc::InsecureChannelCredentials());
    stub_ = v1::PolicyService::NewStub(channel_);
  }

  ~HammerTest() override {
    channel_.reset();
    listeners_->Shutdown(absl::Seconds(20));
    // Promise 8 of the contract, with nothing left in flight.
    EXPECT_EQ(observer_.received(), observer_.completed());
    EXPECT_GT(observer_.received(), 100);
    EXPECT_GT(inference_.answered(), 50);
  }

  template <typename Client>
  void Hammer(Client client) {
    std::vector<std::thread> threads;
    for (int i = 0; i < kClients; ++i) {
      threads.emplace_back([&, i] {
        std::mt19937 random(i);
        const auto until = std::chrono::steady_clock::now() + kTime;
        while (std::chrono::steady_clock::now() < until) client(random);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  static v1::ObservationRequest Observation(const std::string& id,
                                            double value) {
    v1::ObservationRequest observation;
    observation.set_request_id(id);
    observation.add_state(value);
    return observation;
  }

  static float FirstAction(const v1::InferResult& result) {
    float first = -1;
    if (result.actions().data().size() >= sizeof(first)) {
      std::memcpy(&first, result.actions().data().data(), sizeof(first));
    }
    return first;
  }

  ThreadedInference inference_;
  FakeDirectory directory_;
  CountingObserver observer_;
  FakeControl control_;
  Authenticator authenticator_;
  std::unique_ptr<Listeners> listeners_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::PolicyService::Stub> stub_;
};

TEST_F(HammerTest, UnaryCallsThatAreCancelledAtAnyMomentEndOnce) {
  Hammer([&](std::mt19937& random) {
    const int value = static_cast<int>(random() % 1000);
    grpc::ClientContext context;
    v1::InferRequest request;
    *request.mutable_observation() = Observation("id", value);
    v1::InferResponse response;
    const int mood = random() % 3;
    if (mood == 1) {
      context.set_deadline(std::chrono::system_clock::now() +
                           std::chrono::microseconds(random() % 3000));
    }
    std::thread canceller;
    if (mood == 2) {
      canceller = std::thread([&, wait = random() % 3000] {
        std::this_thread::sleep_for(std::chrono::microseconds(wait));
        context.TryCancel();
      });
    }
    const grpc::Status status = stub_->Infer(&context, request, &response);
    if (canceller.joinable()) canceller.join();
    if (mood == 0) {
      EXPECT_TRUE(status.ok()) << status.error_message();
    }
    if (status.ok()) {
      EXPECT_EQ(FirstAction(response.result()), value);
    }
  });
}

TEST_F(HammerTest, StreamsThatEndAtAnyMomentLoseAndDoubleNothing) {
  Hammer([&](std::mt19937& random) {
    grpc::ClientContext context;
    auto stream = stub_->InferStream(&context);
    const int count = 1 + static_cast<int>(random() % 40);
    const bool cancels = random() % 2 == 0;
    const int cancel_at = static_cast<int>(random() % (count + 1));
    std::thread writer([&] {
      for (int i = 0; i < count; ++i) {
        if (cancels && i == cancel_at) context.TryCancel();
        v1::InferStreamRequest request;
        *request.mutable_observation() = Observation(std::to_string(i), i);
        if (!stream->Write(request)) break;
      }
      stream->WritesDone();
    });
    std::set<std::string> answered;
    v1::InferStreamResponse response;
    while (stream->Read(&response)) {
      EXPECT_TRUE(answered.insert(response.request_id()).second)
          << "answered twice: " << response.request_id();
      ASSERT_TRUE(response.has_result()) << response.ShortDebugString();
      EXPECT_EQ(
          std::to_string(static_cast<int>(FirstAction(response.result()))),
          response.request_id());
    }
    writer.join();
    const grpc::Status status = stream->Finish();
    if (!cancels) {
      EXPECT_TRUE(status.ok()) << status.error_message();
      EXPECT_EQ(answered.size(), static_cast<std::size_t>(count));
    }
  });
}

TEST_F(HammerTest, ADrainInTheMiddleAnswersAllThatWasReceived) {
  std::thread drain([&] {
    std::this_thread::sleep_for(kTime / 2);
    listeners_->Drain();
  });
  Hammer([&](std::mt19937& random) {
    grpc::ClientContext context;
    auto stream = stub_->InferStream(&context);
    for (int i = 0; i < 10; ++i) {
      v1::InferStreamRequest request;
      *request.mutable_observation() =
          Observation(std::to_string(i), static_cast<double>(random() % 10));
      if (!stream->Write(request)) break;
    }
    stream->WritesDone();
    int answers = 0;
    v1::InferStreamResponse response;
    while (stream->Read(&response)) ++answers;
    const grpc::Status status = stream->Finish();
    if (status.ok()) {
      EXPECT_EQ(answers, 10);
    } else {
      EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
    }
  });
  drain.join();
}

}  // namespace
}  // namespace piserve::server::rpc
