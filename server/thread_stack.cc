// SPDX-License-Identifier: Apache-2.0
// Linked into every executable that starts CivetWeb. CivetWeb asks for stacks
// of 100 KiB; glibc carves static thread-local storage out of them, and
// libcublasLt alone has 94 KiB of it, so that no thread could start beside
// CUDA.
#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <cstddef>

extern "C" int pthread_attr_setstacksize(pthread_attr_t* attributes,
                                         std::size_t size) noexcept {
  using Function = int (*)(pthread_attr_t*, std::size_t);
  static const auto next =
      reinterpret_cast<Function>(dlsym(RTLD_NEXT, "pthread_attr_setstacksize"));
  return next(attributes, std::max<std::size_t>(size, std::size_t{1} << 20));
}
