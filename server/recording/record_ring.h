// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "batching/mutex.h"

namespace piserve::server {

// Files in a folder, one a record, the oldest deleted once all together take
// more than a limit. A thread of its own writes: whoever adds never waits.
//
// Names sort by age: "<microseconds since 1970>-<count>.rec". A file appears
// whole or not at all. Files of an earlier process count and go first; its
// unfinished ones are deleted.
class RecordRing {
 public:
  struct Options {
    std::string folder;  // made if it is not there
    std::uint64_t max_bytes = std::uint64_t{1} << 30;
    // Records that wait for the disk, and what they and the one being written
    // keep in memory; what would exceed either is dropped.
    std::size_t max_waiting = 256;
    std::size_t max_waiting_bytes = std::size_t{64} << 20;
  };

  // Makes the bytes of a record; called by the writing thread.
  using Encode = std::function<std::string()>;

  // UNAVAILABLE if the folder cannot be made or written to.
  static absl::StatusOr<std::unique_ptr<RecordRing>> Create(Options options);

  // Writes what waits.
  ~RecordRing();
  RecordRing(const RecordRing&) = delete;
  RecordRing& operator=(const RecordRing&) = delete;

  // `time_us` is the record's, microseconds since 1970; `bytes` is what
  // `encode` keeps in memory. Thread-safe.
  void Add(std::int64_t time_us, std::size_t bytes, Encode encode);

  // Waits until all that was added is written or lost, or for that long.
  void Flush(absl::Duration most);

  // Records that were lost, because the disk was too slow or refused.
  std::uint64_t dropped() const;

 private:
  struct Waiting {
    std::int64_t time_us = 0;
    std::size_t bytes = 0;
    Encode encode;
  };
  struct File {
    std::string path;
    std::uint64_t bytes = 0;
  };

  explicit RecordRing(Options options) : options_(std::move(options)) {}

  void FindFiles();
  void WriteAll();
  bool Write(const Waiting& record);
  void DeleteOldest();

  const Options options_;
  // The writing thread's own.
  std::deque<File> files_;  // oldest first
  std::uint64_t bytes_ = 0;
  std::uint64_t count_ = 0;

  mutable batching::Mutex mutex_;
  batching::CondVar changed_;
  std::deque<Waiting> waiting_ ABSL_GUARDED_BY(mutex_);
  // With the record being written; at most max_waiting_bytes.
  std::size_t waiting_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::uint64_t dropped_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace piserve::server
