// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/listeners.h"

#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <chrono>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/descriptor.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "model/error.h"
#include "piserve/admin/v1/admin.grpc.pb.h"
#include "tests/server/rpc/rpc_fixture.h"

namespace piserve::server::rpc {
namespace {

using grpc::reflection::v1alpha::ServerReflection;
using grpc::reflection::v1alpha::ServerReflectionRequest;
using grpc::reflection::v1alpha::ServerReflectionResponse;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::UnorderedElementsAre;

class ListenersTest : public RpcFixture {
 protected:
  // One question to the reflection service.
  static std::pair<grpc::Status, ServerReflectionResponse> Reflect(
      int port, const ServerReflectionRequest& request) {
    const auto stub = ServerReflection::NewStub(Connect(port));
    grpc::ClientContext context;
    const auto stream = stub->ServerReflectionInfo(&context);
    stream->Write(request);
    stream->WritesDone();
    ServerReflectionResponse response;
    while (stream->Read(&response)) {
    }
    return {stream->Finish(), response};
  }

  // Whether a method is served at all, whatever it answers to no bytes.
  static bool Serves(int port, const std::string& method) {
    grpc::GenericStub stub(Connect(port));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(5));
    grpc::CompletionQueue queue;
    const grpc::Slice empty("");
    auto call = stub.PrepareUnaryCall(&context, method,
                                      grpc::ByteBuffer(&empty, 1), &queue);
    call->StartCall();
    grpc::ByteBuffer response;
    grpc::Status status;
    call->Finish(&response, &status, nullptr);
    void* tag;
    bool ok;
    queue.Next(&tag, &ok);
    queue.Shutdown();
    return status.error_code() != grpc::StatusCode::UNIMPLEMENTED;
  }
};

constexpr char kInfo[] = "/piserve.v1.PolicyService/GetPolicyInfo";
constexpr char kCheck[] = "/grpc.health.v1.Health/Check";
constexpr char kChannelz[] = "/grpc.channelz.v1.Channelz/GetServers";
constexpr char kLogLevel[] = "/piserve.admin.v1.AdminService/SetLogLevel";
constexpr char kReflection[] =
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

TEST_F(ListenersTest, EachPortServesWhatItShouldAndNothingElse) {
  struct Row {
    int port;
    std::set<std::string> served;
  };
  const Row rows[] = {
      {listeners_->public_port(), {kInfo, kCheck}},
      {listeners_->probe_port(), {kCheck}},
      {listeners_->admin_port(),
       {kInfo, kCheck, kChannelz, kLogLevel, kReflection}},
  };
  for (const Row& row : rows) {
    for (const char* method :
         {kInfo, kCheck, kChannelz, kLogLevel, kReflection}) {
      EXPECT_EQ(Serves(row.port, method), row.served.contains(method))
          << method << " at " << row.port;
    }
  }
}

TEST_F(ListenersTest, ASecondSetOfListenersIsNoDifferent) {
  // Plugins of gRPC are a process's, so they could have come to stay.
  listeners_->Shutdown(absl::ZeroDuration());
  Start(FreePorts(), {});
  EXPECT_FALSE(Serves(listeners_->public_port(), kReflection));
  EXPECT_FALSE(Serves(listeners_->public_port(), kChannelz));
  EXPECT_TRUE(Serves(listeners_->admin_port(), kReflection));
}

TEST_F(ListenersTest, ReflectionListsAndDescribesTheServicesOnTheAdminPort) {
  ServerReflectionRequest request;
  request.set_list_services("");
  const auto [status, response] = Reflect(listeners_->admin_port(), request);
  ASSERT_TRUE(status.ok()) << status.error_message();
  std::vector<std::string> names;
  for (const auto& service : response.list_services_response().service()) {
    names.push_back(service.name());
  }
  EXPECT_THAT(names,
              UnorderedElementsAre(
                  "piserve.v1.PolicyService", "piserve.admin.v1.AdminService",
                  "grpc.health.v1.Health", "grpc.channelz.v1.Channelz",
                  "grpc.reflection.v1alpha.ServerReflection"));
  for (const std::string& name : names) {
    ServerReflectionRequest describe;
    describe.set_file_containing_symbol(name);
    const auto described = Reflect(listeners_->admin_port(), describe).second;
    EXPECT_TRUE(described.has_file_descriptor_response()) << name;
  }
}

TEST_F(ListenersTest, ThereIsNoReflectionOnThePublicAndTheProbePort) {
  ServerReflectionRequest request;
  request.set_list_services("");
  for (const int port : {listeners_->public_port(), listeners_->probe_port()}) {
    EXPECT_EQ(Reflect(port, request).first.error_code(),
              grpc::StatusCode::UNIMPLEMENTED);
  }
}

TEST_F(ListenersTest, InferIsServedOnTheAdminPortToo) {
  inference_.AnswerAtOnce();
  const auto stub =
      v1::PolicyService::NewStub(Connect(listeners_->admin_port()));
  grpc::ClientContext context;
  v1::InferRequest request;
  *request.mutable_observation() = GoodObservation("r");
  v1::InferResponse response;
  EXPECT_TRUE(stub->Infer(&context, request, &response).ok());
}

TEST_F(ListenersTest, OperatorsDrainAndSetTheLogLevel) {
  const auto stub =
      admin::v1::AdminService::NewStub(Connect(listeners_->admin_port()));
  grpc::ClientContext drain, level, bad;
  admin::v1::DrainResponse drained;
  EXPECT_TRUE(stub->Drain(&drain, {}, &drained).ok());
  EXPECT_EQ(control_.drains, 1);
  admin::v1::SetLogLevelRequest request;
  admin::v1::SetLogLevelResponse response;
  request.set_level(admin::v1::LOG_LEVEL_DEBUG);
  EXPECT_TRUE(stub->SetLogLevel(&level, request, &response).ok());
  EXPECT_EQ(response.previous(), admin::v1::LOG_LEVEL_INFO);
  EXPECT_EQ(control_.log_level, LogLevel::kDebug);
  request.set_level(admin::v1::LogLevel(9));
  EXPECT_EQ(stub->SetLogLevel(&bad, request, &response).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(control_.log_level, LogLevel::kDebug);
}

TEST_F(ListenersTest, ConnectionsAreCountedOnThePublicListenerOnly) {
  const auto await = [&](int count) {
    for (int i = 0; i < 500 && listeners_->Connections() != count; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return listeners_->Connections();
  };
  const auto open = [](int port) {
    auto channel = Connect(port);
    EXPECT_TRUE(channel->WaitForConnected(std::chrono::system_clock::now() +
                                          std::chrono::seconds(10)));
    return channel;
  };
  EXPECT_EQ(listeners_->Connections(), 0);
  auto a = open(listeners_->public_port());
  auto b = open(listeners_->public_port());
  auto c = open(listeners_->admin_port());
  EXPECT_EQ(await(2), 2);
  a.reset();
  EXPECT_EQ(await(1), 1);
}

TEST_F(ListenersTest, MetadataBeyondItsLimitIsRefused) {
  inference_.AnswerAtOnce();
  grpc::ClientContext context;
  context.AddMetadata("x-padding", std::string(16384, 'x'));
  v1::InferRequest request;
  v1::InferResponse response;
  EXPECT_EQ(stub_->Infer(&context, request, &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(observer_.received(), 0);
}

TEST_F(ListenersTest, CompressedMessagesAreRefused) {
  inference_.AnswerAtOnce();
  grpc::ClientContext context;
  context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  v1::InferRequest request;
  request.mutable_observation()->set_prompt(std::string(1000, 'x'));
  v1::InferResponse response;
  EXPECT_EQ(stub_->Infer(&context, request, &response).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(ListenersTest, AnAnswerOverOneMebibyteIsNotSent) {
  for (const int bytes : {(1 << 20) - 1000, 1 << 20}) {
    inference_.AnswerBy([=](const InferenceRequest& request) {
      InferenceReply reply = ReplyTo(request);
      reply.horizon = bytes / 4 / reply.dim;
      reply.actions.assign(reply.horizon * reply.dim, 1.5f);
      return reply;
    });
    EXPECT_EQ(Infer(GoodObservation("r")).status.error_code(),
              bytes < 1 << 20 ? grpc::StatusCode::OK
                              : grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
}

TEST_F(ListenersTest, AConnectionCarriesSixtyFourCallsAtATime) {
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::thread> calls;
  for (int i = 0; i < 65; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    calls.emplace_back([&, i] {
      v1::InferRequest request;
      *request.mutable_observation() = GoodObservation(std::to_string(i));
      v1::InferResponse response;
      EXPECT_TRUE(stub_->Infer(contexts[i].get(), request, &response).ok());
    });
  }
  inference_.AwaitWaiting(64);  // The 65th waits in the client,
  EXPECT_EQ(observer_.received(), 64);
  inference_.Answer("");
  inference_.AwaitWaiting(64);  // until one is done.
  for (int i = 0; i < 64; ++i) inference_.Answer("");
  for (std::thread& call : calls) call.join();
}

TEST_F(ListenersTest, ShutdownAnswersWhatWasAcceptedAndReturnsSoonAfter) {
  std::thread call(
      [&] { EXPECT_TRUE(Infer(GoodObservation("r")).status.ok()); });
  inference_.AwaitWaiting(1);
  const absl::Time before = batching::Clock::Real().Now();
  std::thread shutdown([&] { listeners_->Shutdown(absl::Seconds(60)); });
  inference_.Answer("r");
  call.join();
  shutdown.join();
  EXPECT_LT(batching::Clock::Real().Now() - before, absl::Seconds(30));
}

class AddressTest : public RpcFixture {
 protected:
  void SetUp() override {}

  absl::Status Try(const ListenerOptions& options) {
    return Listeners::Create(options, backends(), control_).status();
  }
};

TEST_F(AddressTest, PlainTextBeyondLoopbackMustBeAllowed) {
  ListenerOptions options = FreePorts();
  options.public_address = "0.0.0.0:0";
  const absl::Status status = Try(options);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(ReasonOf(status), "NOT_LOOPBACK");
  options.plain_text = PlainText::kAnywhere;
  EXPECT_TRUE(Try(options).ok());
}

TEST_F(AddressTest, TheProbeMayBeAnywhereAndAdminNowhereElse) {
  ListenerOptions options = FreePorts();
  options.probe_address = "0.0.0.0:0";
  options.plain_text = PlainText::kAnywhere;
  EXPECT_TRUE(Try(options).ok());
  options.admin_address = "0.0.0.0:0";
  EXPECT_EQ(ReasonOf(Try(options)), "NOT_LOOPBACK");
}

TEST_F(AddressTest, AddressesThatAreNoneAreRefused) {
  for (const char* address :
       {"", "50051", "example.com:1", "127.0.0.1:99999"}) {
    ListenerOptions options = FreePorts();
    options.probe_address = address;
    EXPECT_EQ(ReasonOf(Try(options)), "BAD_ADDRESS") << address;
  }
}

TEST_F(AddressTest, APortThatIsTakenIsUnavailable) {
  Start(FreePorts(), {});
  ListenerOptions options = FreePorts();
  options.public_address =
      "127.0.0.1:" + std::to_string(listeners_->public_port());
  const absl::Status status = Try(options);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(ReasonOf(status), "CANNOT_LISTEN");
}

TEST_F(AddressTest, ATakenPortIsNotPutDownToTlsWhereThereIsNone) {
  Start(FreePorts(), {});
  const std::string taken =
      "127.0.0.1:" + std::to_string(listeners_->public_port());
  for (std::string ListenerOptions::*address :
       {&ListenerOptions::public_address, &ListenerOptions::probe_address,
        &ListenerOptions::admin_address}) {
    ListenerOptions options = FreePorts();
    options.*address = taken;
    const std::string message(Try(options).message());
    EXPECT_THAT(message,
                AllOf(HasSubstr("is the port free?"), Not(HasSubstr("TLS"))));
  }
}

// A self-signed certificate for localhost and its key, made here: one that is
// kept would expire.
TlsOptions MakeCertificate() {
  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_RSA_gen(2048),
                                                          &EVP_PKEY_free);
  std::unique_ptr<X509, decltype(&X509_free)> x509(X509_new(), &X509_free);
  X509_set_version(x509.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x509.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(x509.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(x509.get()), 3600);
  X509_set_pubkey(x509.get(), key.get());
  X509_NAME* name = X509_get_subject_name(x509.get());
  X509_NAME_add_entry_by_txt(
      name, "CN", MBSTRING_ASC,
      reinterpret_cast<const unsigned char*>("localhost"), -1, -1, 0);
  X509_set_issuer_name(x509.get(), name);
  X509_EXTENSION* alternative = X509V3_EXT_conf_nid(
      nullptr, nullptr, NID_subject_alt_name, "DNS:localhost");
  X509_add_ext(x509.get(), alternative, -1);
  X509_EXTENSION_free(alternative);
  X509_sign(x509.get(), key.get(), EVP_sha256());

  const auto text = [](auto write) {
    BIO* bio = BIO_new(BIO_s_mem());
    write(bio);
    char* data = nullptr;
    const long size = BIO_get_mem_data(bio, &data);
    std::string out(data, size);
    BIO_free(bio);
    return out;
  };
  TlsOptions tls;
  tls.certificate_chain =
      text([&](BIO* bio) { PEM_write_bio_X509(bio, x509.get()); });
  tls.private_key = text([&](BIO* bio) {
    PEM_write_bio_PrivateKey(bio, key.get(), nullptr, nullptr, 0, nullptr,
                             nullptr);
  });
  return tls;
}

class TlsTest : public AddressTest {
 protected:
  grpc::Status Call(const std::shared_ptr<grpc::ChannelCredentials>& creds) {
    // No name is looked up: Debian's c-ares leaks a few bytes where one is.
    grpc::ChannelArguments arguments;
    arguments.SetSslTargetNameOverride("localhost");
    const auto stub = v1::PolicyService::NewStub(grpc::CreateCustomChannel(
        "127.0.0.1:" + std::to_string(listeners_->public_port()), creds,
        arguments));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(5));
    v1::GetPolicyInfoResponse response;
    return stub->GetPolicyInfo(&context, {}, &response);
  }

  std::shared_ptr<grpc::ChannelCredentials> ClientCredentials(
      bool with_certificate) {
    grpc::SslCredentialsOptions client;
    client.pem_root_certs = tls_.certificate_chain;
    if (with_certificate) {
      client.pem_cert_chain = tls_.certificate_chain;
      client.pem_private_key = tls_.private_key;
    }
    return grpc::SslCredentials(client);
  }

  const TlsOptions tls_ = MakeCertificate();
};

TEST_F(TlsTest, ServesTlsAndNoPlainText) {
  ListenerOptions options = FreePorts();
  options.tls = tls_;
  Start(options, {});
  EXPECT_TRUE(Call(ClientCredentials(false)).ok());
  EXPECT_FALSE(Call(grpc::InsecureChannelCredentials()).ok());
}

TEST_F(TlsTest, AClientCaAsksForCertificates) {
  ListenerOptions options = FreePorts();
  options.tls = tls_;
  options.tls->client_ca = tls_.certificate_chain;
  Start(options, {});
  EXPECT_TRUE(Call(ClientCredentials(true)).ok());
  EXPECT_FALSE(Call(ClientCredentials(false)).ok());
}

TEST_F(TlsTest, MaterialThatIsNoPemIsRefusedAtStart) {
  ListenerOptions options = FreePorts();
  options.tls = TlsOptions{"no certificate", "no key", ""};
  const absl::Status status = Try(options);
  EXPECT_EQ(ReasonOf(status), "CANNOT_LISTEN");
  EXPECT_THAT(std::string(status.message()), HasSubstr("TLS material"));
}

TEST_F(TlsTest, TlsMayBeServedToEveryone) {
  ListenerOptions options = FreePorts();
  options.tls = tls_;
  options.public_address = "0.0.0.0:0";
  EXPECT_TRUE(Try(options).ok());
}

}  // namespace
}  // namespace piserve::server::rpc
