// SPDX-License-Identifier: Apache-2.0
#include "server/recording/record_ring.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "batching/clock.h"

namespace piserve::server {
namespace {

namespace fs = std::filesystem;

constexpr char kSuffix[] = ".rec";
constexpr char kDraftSuffix[] = ".new";  // after kSuffix

bool WriteDraft(const fs::path& draft, const std::string& bytes) {
  std::ofstream file(draft, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.flush();
  return file.good();
}

// What fails leaves nothing: the limit does not count drafts.
bool WriteWhole(const fs::path& path, const std::string& bytes) {
  fs::path draft = path;
  draft += kDraftSuffix;
  std::error_code error;
  if (WriteDraft(draft, bytes)) {
    fs::rename(draft, path, error);
    if (!error) return true;
  }
  fs::remove(draft, error);
  return false;
}

bool IsDraft(const fs::path& path) {
  return path.extension() == kDraftSuffix && path.stem().extension() == kSuffix;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RecordRing>> RecordRing::Create(
    Options options) {
  std::error_code error;
  fs::create_directories(options.folder, error);
  const fs::path trial = fs::path(options.folder) / "writable";
  if (error || !WriteWhole(trial, "")) {
    return absl::UnavailableError(
        absl::StrCat("record.folder: cannot write to ", options.folder));
  }
  fs::remove(trial, error);
  std::unique_ptr<RecordRing> ring(new RecordRing(std::move(options)));
  ring->FindFiles();
  ring->thread_ = std::thread([r = ring.get()] { r->WriteAll(); });
  return ring;
}

RecordRing::~RecordRing() {
  {
    batching::MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

void RecordRing::Add(std::int64_t time_us, std::size_t bytes, Encode encode) {
  batching::MutexLock lock(mutex_);
  if (waiting_.size() >= options_.max_waiting ||
      bytes > options_.max_waiting_bytes - waiting_bytes_) {
    ++dropped_;
    return;
  }
  waiting_.push_back({time_us, bytes, std::move(encode)});
  waiting_bytes_ += bytes;
  changed_.NotifyAll();
}

void RecordRing::Flush(absl::Duration most) {
  const batching::Clock& clock = batching::Clock::Real();
  const absl::Time until = clock.Now() + most;
  batching::MutexLock lock(mutex_);
  while (waiting_bytes_ > 0 && clock.Now() < until) {
    changed_.WaitFor(mutex_, until - clock.Now());
  }
}

std::uint64_t RecordRing::dropped() const {
  batching::MutexLock lock(mutex_);
  return dropped_;
}

void RecordRing::FindFiles() {
  std::error_code error, ignored;
  for (const auto& entry : fs::directory_iterator(options_.folder, error)) {
    if (IsDraft(entry.path())) fs::remove(entry.path(), ignored);
    if (entry.path().extension() != kSuffix) continue;
    const std::uint64_t bytes = entry.file_size(error);
    if (error) continue;
    files_.push_back({entry.path().string(), bytes});
    bytes_ += bytes;
  }
  std::sort(files_.begin(), files_.end(),
            [](const File& a, const File& b) { return a.path < b.path; });
  DeleteOldest();
}

void RecordRing::WriteAll() {
  while (true) {
    Waiting record;
    {
      batching::MutexLock lock(mutex_);
      while (waiting_.empty() && !stopping_) changed_.Wait(mutex_);
      if (waiting_.empty()) return;
      record = std::move(waiting_.front());
      waiting_.pop_front();
    }
    const bool written = Write(record);
    record.encode = nullptr;  // frees what it keeps, before others may
    batching::MutexLock lock(mutex_);
    waiting_bytes_ -= record.bytes;
    if (!written) ++dropped_;
    changed_.NotifyAll();
  }
}

bool RecordRing::Write(const Waiting& record) {
  const std::string bytes = record.encode();
  const fs::path path = fs::path(options_.folder) /
                        absl::StrFormat("%016d-%06d%s", record.time_us,
                                        count_++ % 1'000'000, kSuffix);
  if (!WriteWhole(path, bytes)) return false;
  files_.push_back({path.string(), bytes.size()});
  bytes_ += bytes.size();
  DeleteOldest();
  return true;
}

void RecordRing::DeleteOldest() {
  std::error_code ignored;
  while (bytes_ > options_.max_bytes && !files_.empty()) {
    fs::remove(files_.front().path, ignored);
    bytes_ -= files_.front().bytes;
    files_.pop_front();
  }
}

}  // namespace piserve::server
