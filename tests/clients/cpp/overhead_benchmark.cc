// SPDX-License-Identifier: Apache-2.0
// What the server adds to gRPC: one robot, three raw 224x224 views, a policy
// that does nothing, on loopback, beside a bare gRPC echo of the same bytes and
// beside one that answers with as many bytes as a policy does.
//
//   overhead_benchmark [--server=PROGRAM | --server_address=HOST:PORT]
//
// Every round makes one call of each kind, in random order, so that all see the
// same machine.
// Both servers are processes of their own. Exit code 1 if the server's p50 is
// more than --max_ratio times the echo's.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "clients/cpp/cli/observation_source.h"
#include "clients/cpp/cli/table.h"
#include "clients/cpp/load/statistics.h"
#include "clients/cpp/piserve/client.h"
#include "clients/cpp/piserve/codec.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "nlohmann/json.hpp"
#include "tests/clients/cpp/server_child.h"

ABSL_FLAG(std::string, server, "build/dev/bin/piserve_test_server",
          "Server program; run with --policy=noop");
ABSL_FLAG(std::string, server_address, "",
          "A server that runs already, instead");
ABSL_FLAG(int, rounds, 2000, "Calls of each kind that count");
ABSL_FLAG(int, warmup, 200, "Calls of each kind before that");
ABSL_FLAG(double, max_ratio, 2.0, "Of the p50");
ABSL_FLAG(std::string, json, "", "File for the report as JSON");

namespace piserve::client {
namespace {

constexpr char kInfer[] = "/piserve.v1.PolicyService/Infer";
constexpr int kMaxMessageBytes = 8 << 20;

double MillisecondsSince(std::chrono::steady_clock::time_point start) {
  return absl::ToDoubleMilliseconds(
      absl::FromChrono(std::chrono::steady_clock::now() - start));
}

// Takes any bytes; answers with the reply it was made with, or the bytes
// themselves where a call asks for that. Parses nothing.
class EchoService final : public v1::PolicyService::WithRawCallbackMethod_Infer<
                              v1::PolicyService::Service> {
 public:
  explicit EchoService(std::size_t reply_bytes)
      : reply_(std::string(reply_bytes, 'x')) {}

  grpc::ServerUnaryReactor* Infer(grpc::CallbackServerContext* context,
                                  const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override {
    const bool whole = context->client_metadata().count("whole") > 0;
    *response = whole ? *request : grpc::ByteBuffer(&reply_, 1);
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  const grpc::Slice reply_;
};

void ServeEcho(std::size_t reply_bytes,
               const std::function<void(int)>& tell_port) {
  EchoService service(reply_bytes);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                           &port);
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  tell_port(port);
  server->Wait();
}

// Sends bytes and gets bytes, with nothing of ours in between.
class RawCaller {
 public:
  explicit RawCaller(const std::string& address) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
    stub_ = std::make_unique<grpc::GenericStub>(grpc::CreateCustomChannel(
        address, grpc::InsecureChannelCredentials(), arguments));
  }

  bool Call(const grpc::ByteBuffer& request, bool whole) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(5));
    if (whole) context.AddMetadata("whole", "1");
    const auto call =
        stub_->PrepareUnaryCall(&context, kInfer, request, &queue_);
    call->StartCall();
    grpc::ByteBuffer response;
    grpc::Status status;
    call->Finish(&response, &status, this);
    void* tag = nullptr;
    bool ok = false;
    queue_.Next(&tag, &ok);
    return ok && status.ok();
  }

 private:
  std::unique_ptr<grpc::GenericStub> stub_;
  grpc::CompletionQueue queue_;
};

grpc::ByteBuffer Serialized(const v1::InferRequest& request) {
  const grpc::Slice slice(request.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

struct Kind {
  std::string name;
  std::function<bool()> call;
  std::vector<double> ms;
};

bool RunRounds(std::vector<Kind>& kinds) {
  const int warmup = absl::GetFlag(FLAGS_warmup);
  const int rounds = warmup + absl::GetFlag(FLAGS_rounds);
  std::vector<int> order(kinds.size());
  std::iota(order.begin(), order.end(), 0);
  std::mt19937 random(1);
  for (int round = 0; round < rounds; ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (std::size_t i = 0; i < kinds.size(); ++i) {
      // Each kind follows every other one equally often.
      Kind& kind = kinds[order[i]];
      const auto start = std::chrono::steady_clock::now();
      if (!kind.call()) {
        std::fprintf(stderr, "%s: call failed\n", kind.name.c_str());
        return false;
      }
      if (round >= warmup) kind.ms.push_back(MillisecondsSince(start));
    }
  }
  return true;
}

void PrintLatencies(const std::vector<Kind>& kinds) {
  Table table({"ms", "p50", "p90", "p99", "p50 / echo"});
  const double echo = load::Describe(kinds[0].ms).p50;
  for (const Kind& kind : kinds) {
    const load::Distribution d = load::Describe(kind.ms);
    table.Add({kind.name, absl::StrFormat("%.3f", d.p50),
               absl::StrFormat("%.3f", d.p90), absl::StrFormat("%.3f", d.p99),
               absl::StrFormat("%.2f", d.p50 / echo)});
  }
  std::puts(table.ToString().c_str());
}

// Where the time of a call by the client library goes, by medians: the server's
// own stages, the client's encoding, and the rest, which is gRPC's.
void PrintStages(const std::map<std::string, std::vector<double>>& stages,
                 double encode_ms, double whole_ms) {
  Table table({"where the time goes", "ms"});
  double known = encode_ms;
  for (const auto& [stage, ms] : stages) {
    const double p50 = load::Describe(ms).p50;
    known += p50;
    table.Add({"server: " + stage, absl::StrFormat("%.3f", p50)});
  }
  table.Add({"client: encode", absl::StrFormat("%.3f", encode_ms)});
  table.Add({"gRPC, scheduling", absl::StrFormat("%.3f", whole_ms - known)});
  table.Add({"in all", absl::StrFormat("%.3f", whole_ms)});
  std::puts(table.ToString().c_str());
}

nlohmann::ordered_json ToJson(const std::vector<double>& ms) {
  const load::Distribution d = load::Describe(ms);
  return {{"count", d.count}, {"p50", d.p50}, {"p90", d.p90},
          {"p99", d.p99},     {"max", d.max}, {"mean", d.mean}};
}

// False if a file was asked for and cannot be written.
bool WriteJson(const std::vector<Kind>& kinds,
               const std::map<std::string, std::vector<double>>& stages,
               double encode_ms, std::size_t message_bytes) {
  const std::string path = absl::GetFlag(FLAGS_json);
  if (path.empty()) return true;
  nlohmann::ordered_json json = {{"message_bytes", message_bytes},
                                 {"client_encode_ms", encode_ms}};
  for (const Kind& kind : kinds) {
    json["latency_ms"][kind.name] = ToJson(kind.ms);
  }
  for (const auto& [stage, ms] : stages) json["stage_ms"][stage] = ToJson(ms);
  std::ofstream file(path);
  file << json.dump(2) << "\n";
  file.close();
  if (file.fail()) std::fprintf(stderr, "cannot write %s\n", path.c_str());
  return !file.fail();
}

double EncodeMs(const ObservationIn& observation) {
  std::vector<double> ms;
  for (int i = 0; i < 200; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const grpc::ByteBuffer bytes = EncodeRequest(observation, start);
    ms.push_back(MillisecondsSince(start));
  }
  return load::Describe(ms).p50;
}

// Three views, one for each camera of the model.
absl::StatusOr<ObservationIn> Observe(const v1::PolicyInfo& info) {
  auto observation = MakeObservation(info, {});
  if (!observation.ok()) return observation;
  while (observation->images.size() > 3) observation->images.pop_back();
  observation->start = std::uint64_t{1};
  return observation;
}

// Until the server is warm.
absl::StatusOr<ActionChunk> FirstChunk(PolicyClient& client,
                                       ObservationIn* observation) {
  absl::StatusOr<ActionChunk> chunk = absl::UnavailableError("not asked yet");
  for (int i = 0; i < 300 && absl::IsUnavailable(chunk.status()); ++i) {
    absl::SleepFor(absl::Milliseconds(100));
    const auto infos = client.GetPolicyInfo();
    if (!infos.ok()) continue;
    auto made = Observe(infos->front());
    if (!made.ok()) return made.status();
    *observation = *std::move(made);
    chunk = client.Infer(*observation);
  }
  return chunk;
}

int Measure(PolicyClient& client, const std::string& server_address,
            const std::string& echo_address) {
  ObservationIn observation;
  const auto first = FirstChunk(client, &observation);
  if (!first.ok()) {
    std::fprintf(stderr, "%s\n", first.status().ToString().c_str());
    return 2;
  }
  v1::InferRequest request;
  EncodeObservation(observation, request.mutable_observation());
  // Of its own for each kind, as the client library's: none finds its bytes in
  // a cache that another one has warmed.
  const grpc::ByteBuffer echo_bytes = Serialized(request);
  const grpc::ByteBuffer short_bytes = Serialized(request);
  const grpc::ByteBuffer server_bytes = Serialized(request);
  RawCaller echo(echo_address);
  RawCaller server(server_address);
  std::map<std::string, std::vector<double>> stages;
  std::vector<Kind> kinds = {
      {"bare gRPC echo", [&] { return echo.Call(echo_bytes, true); }, {}},
      {"bare gRPC, short reply",
       [&] { return echo.Call(short_bytes, false); },
       {}},
      {"piserve", [&] { return server.Call(server_bytes, false); }, {}},
      {"piserve, client library",
       [&] {
         const auto chunk = client.Infer(observation);
         if (!chunk.ok()) return false;
         for (const auto& [stage, duration] : chunk->stages) {
           stages[stage].push_back(absl::ToDoubleMilliseconds(duration));
         }
         return true;
       },
       {}}};
  if (!RunRounds(kinds)) return 2;
  std::printf("%zu images, %zu bytes, %zu rounds\n\n",
              observation.images.size(), echo_bytes.Length(),
              kinds[0].ms.size());
  PrintLatencies(kinds);
  const double encode_ms = EncodeMs(observation);
  PrintStages(stages, encode_ms, load::Describe(kinds[3].ms).p50);
  if (!WriteJson(kinds, stages, encode_ms, echo_bytes.Length())) return 2;
  const double ratio =
      load::Describe(kinds[3].ms).p50 / load::Describe(kinds[0].ms).p50;
  std::printf("p50 %.2f times the echo's, want at most %.2f\n", ratio,
              absl::GetFlag(FLAGS_max_ratio));
  return ratio <= absl::GetFlag(FLAGS_max_ratio) ? 0 : 1;
}

int Run() {
  // As large as a reply of [10, 7] with its stages.
  constexpr std::size_t kReplyBytes = 600;
  const auto echo = ServerChild::Fork(
      [&](const auto& tell_port) { ServeEcho(kReplyBytes, tell_port); });
  if (!echo.ok()) {
    std::fprintf(stderr, "%s\n", echo.status().ToString().c_str());
    return 2;
  }
  std::string address = absl::GetFlag(FLAGS_server_address);
  std::unique_ptr<ServerChild> server;
  if (address.empty()) {
    auto child =
        ServerChild::Run({absl::GetFlag(FLAGS_server), "--policy=noop"});
    if (!child.ok()) {
      std::fprintf(stderr, "%s\n", child.status().ToString().c_str());
      return 2;
    }
    server = *std::move(child);
    address = server->address();
  }
  Options options;
  options.address = address;
  const auto client = PolicyClient::Connect(options);
  if (!client.ok()) {
    std::fprintf(stderr, "%s\n", client.status().ToString().c_str());
    return 2;
  }
  return Measure(**client, address, (*echo)->address());
}

}  // namespace
}  // namespace piserve::client

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  return piserve::client::Run();
}
