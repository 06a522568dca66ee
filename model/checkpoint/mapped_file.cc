// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

namespace piserve::checkpoint {
namespace {

constexpr std::size_t kMaxTextBytes = 16 << 20;

absl::Status SystemError(absl::string_view what, int error) {
  const std::string message = absl::StrCat(what, ": ", std::strerror(error));
  return error == ENOENT || error == ENOTDIR
             ? absl::NotFoundError("no such file")
             : absl::FailedPreconditionError(message);
}

}  // namespace

absl::StatusOr<MappedFile> MapFile(const std::string& path) {
  // Without waiting for a pipe's writer; for a regular file that means nothing.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return SystemError("cannot open", errno);
  const absl::Cleanup close_fd = [fd] { close(fd); };
  struct stat info = {};
  if (fstat(fd, &info) != 0) return SystemError("cannot stat", errno);
  if (!S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError("got no regular file, want one");
  }
  if (info.st_size == 0) {
    return absl::FailedPreconditionError("got an empty file");
  }
  const std::size_t size = static_cast<std::size_t>(info.st_size);
  void* const data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) return SystemError("cannot map", errno);
  return MappedFile{
      .bytes = {static_cast<const std::byte*>(data), size},
      .owner = std::shared_ptr<const void>(
          data, [size](const void* p) { munmap(const_cast<void*>(p), size); }),
  };
}

absl::StatusOr<std::string> ReadTextFile(const std::string& path) {
  absl::StatusOr<MappedFile> file = MapFile(path);
  if (!file.ok()) return file.status();
  if (file->bytes.size() > kMaxTextBytes) {
    return absl::FailedPreconditionError(absl::StrCat(
        "got ", file->bytes.size(), " bytes, want at most ", kMaxTextBytes));
  }
  return std::string(reinterpret_cast<const char*>(file->bytes.data()),
                     file->bytes.size());
}

}  // namespace piserve::checkpoint
