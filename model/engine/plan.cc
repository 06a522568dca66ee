// SPDX-License-Identifier: Apache-2.0
#include "model/engine/plan.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace piserve::engine {
namespace {

constexpr char kMagic[] = "piserve-plan 1";

std::int64_t Nanoseconds(absl::Duration d) {
  return absl::ToInt64Nanoseconds(d);
}

bool Read(std::istream& in, absl::Duration& to) {
  std::int64_t ns = 0;
  if (!(in >> ns)) return false;
  to = absl::Nanoseconds(ns);
  return true;
}

bool ReadGemm(std::istream& in, Plan& plan) {
  GemmShape shape;
  int epilogue = 0, output = 0, type = 0;
  Plan::Algorithm algorithm;
  in >> shape.m >> shape.n >> shape.k >> epilogue >> output >> type >> std::hex;
  for (std::uint64_t& word : algorithm) in >> word;
  if (!in || epilogue < 0 || epilogue > 2 || output < 0 || output > 1 ||
      type < 0 || type > 1) {
    return false;
  }
  shape.epilogue = static_cast<Epilogue>(epilogue);
  shape.output = static_cast<Output>(output);
  shape.type = static_cast<GemmType>(type);
  return plan.gemms.emplace(shape, algorithm).second;
}

bool ReadPrefix(std::istream& in, Plan& plan) {
  PrefixShape shape;
  CostTable::Prefix cost;
  if (!(in >> shape.rows >> shape.cameras >> shape.prompt_tokens)) return false;
  return Read(in, cost.vision) && Read(in, cost.prefill) &&
         plan.costs.prefix.emplace(shape, cost).second;
}

bool ReadSteps(std::istream& in, Plan& plan) {
  int rows = 0;
  CostTable::Steps cost;
  if (!(in >> rows)) return false;
  return Read(in, cost.first) && Read(in, cost.later) &&
         plan.costs.steps.emplace(rows, cost).second;
}

bool ReadPersistent(std::istream& in, Plan& plan) {
  int rows = 0;
  return (in >> rows) && plan.persistent.insert(rows).second;
}

bool ReadHash(std::istream& in, Plan& plan) {
  int rows = 0;
  std::uint64_t hash = 0;
  return (in >> rows >> std::hex >> hash) &&
         plan.hashes.emplace(rows, hash).second;
}

bool ReadLine(const std::string& line, Plan& plan) {
  std::istringstream in(line);
  std::string kind;
  in >> kind;
  if (kind == "key") {
    std::getline(in >> std::ws, plan.key);
    return !plan.key.empty();
  }
  if (kind == "gemm") return ReadGemm(in, plan);
  if (kind == "persistent") return ReadPersistent(in, plan);
  if (kind == "prefix") return ReadPrefix(in, plan);
  if (kind == "steps") return ReadSteps(in, plan);
  if (kind == "transfer") return Read(in, plan.costs.transfer);
  if (kind == "hash") return ReadHash(in, plan);
  return false;
}

// Of this process alone: others may write the same plan.
std::string DraftOf(const std::string& path) {
  return absl::StrCat(path, ".", getpid(), ".new");
}

// Not into the page cache only: a power cut must not leave a renamed file that
// is empty.
bool WriteToDisk(const std::string& path, const std::string& text) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) return false;
  const bool written =
      std::fwrite(text.data(), 1, text.size(), file) == text.size() &&
      std::fflush(file) == 0 && fsync(fileno(file)) == 0;
  return std::fclose(file) == 0 && written;
}

}  // namespace

std::string ToText(const Plan& plan) {
  std::string text = absl::StrCat(kMagic, "\nkey ", plan.key, "\n");
  for (const auto& [s, algorithm] : plan.gemms) {
    absl::StrAppendFormat(&text, "gemm %d %d %d %d %d %d", s.m, s.n, s.k,
                          static_cast<int>(s.epilogue),
                          static_cast<int>(s.output), static_cast<int>(s.type));
    for (const std::uint64_t word : algorithm) {
      absl::StrAppendFormat(&text, " %x", word);
    }
    text += "\n";
  }
  for (const int rows : plan.persistent) {
    absl::StrAppendFormat(&text, "persistent %d\n", rows);
  }
  for (const auto& [s, cost] : plan.costs.prefix) {
    absl::StrAppendFormat(&text, "prefix %d %d %d %d %d\n", s.rows, s.cameras,
                          s.prompt_tokens, Nanoseconds(cost.vision),
                          Nanoseconds(cost.prefill));
  }
  for (const auto& [rows, cost] : plan.costs.steps) {
    absl::StrAppendFormat(&text, "steps %d %d %d\n", rows,
                          Nanoseconds(cost.first), Nanoseconds(cost.later));
  }
  absl::StrAppendFormat(&text, "transfer %d\n",
                        Nanoseconds(plan.costs.transfer));
  for (const auto& [rows, hash] : plan.hashes) {
    absl::StrAppendFormat(&text, "hash %d %x\n", rows, hash);
  }
  return text;
}

absl::StatusOr<Plan> ParsePlan(std::string_view text) {
  std::istringstream in{std::string(text)};
  std::string line;
  if (!std::getline(in, line) || line != kMagic) {
    return absl::InvalidArgumentError(
        absl::StrCat("plan: want '", kMagic, "' on line 1"));
  }
  Plan plan;
  for (int number = 2; std::getline(in, line); ++number) {
    if (!ReadLine(line, plan)) {
      return absl::InvalidArgumentError(
          absl::StrCat("plan: cannot read line ", number));
    }
  }
  return plan;
}

absl::StatusOr<Plan> ReadPlan(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat("plan: no file ", path));
  std::ostringstream text;
  text << file.rdbuf();
  return ParsePlan(text.str());
}

absl::Status WritePlan(const std::string& path, const Plan& plan) {
  const std::string draft = DraftOf(path);
  std::error_code ignored;
  const auto folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder, ignored);
  if (!WriteToDisk(draft, ToText(plan))) {
    return absl::UnavailableError(
        absl::StrCat("plan: cannot write ", draft, ": ", strerror(errno)));
  }
  if (std::rename(draft.c_str(), path.c_str()) != 0) {
    return absl::UnavailableError(
        absl::StrCat("plan: cannot write ", path, ": ", strerror(errno)));
  }
  return absl::OkStatus();
}

}  // namespace piserve::engine
