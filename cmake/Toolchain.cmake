# What every target is compiled and linked with.
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()
find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()
find_program(MOLD mold)
if(MOLD AND NOT PISERVE_FUZZ)
  add_link_options(-fuse-ld=mold)
endif()

# Set up by `make setup` (deploy/setup), which unpacks both below .deps.
set(LIBTORCH_ROOT "${PROJECT_SOURCE_DIR}/.deps/torch/torch" CACHE PATH "Unpacked torch wheel")
set(SENTENCEPIECE_ROOT "${PROJECT_SOURCE_DIR}/.deps/sentencepiece-0.2.0/sentencepiece"
  CACHE PATH "Unpacked SentencePiece source")
set(GOOGLEAPIS_ROOT "${PROJECT_SOURCE_DIR}/.deps/googleapis" CACHE PATH
  "Folder that holds google/rpc/status.proto")
set(GRPC_PROTO_ROOT /usr/share/grpc-proto CACHE PATH
  "Folder that holds grpc/health/v1/health.proto")

set(PISERVE_WARNINGS -Wall -Wextra -Wno-sign-compare)
if(PISERVE_WERROR)
  list(APPEND PISERVE_WARNINGS -Werror)
endif()
# What each mutex guards (batching/mutex.h), wherever clang builds.
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  list(APPEND PISERVE_WARNINGS -Wthread-safety -Werror=thread-safety)
endif()

if(PISERVE_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(PISERVE_SANITIZE STREQUAL "thread")
  # Debian's protobuf lacks the two members that protobuf's headers add under
  # __SANITIZE_THREAD__.
  add_compile_options(-fsanitize=thread -U__SANITIZE_THREAD__ -fno-omit-frame-pointer)
  add_link_options(-fsanitize=thread)
endif()
if(PISERVE_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined)
  add_link_options(-fsanitize=address,undefined)
endif()

# A third of an ASan build's time would go into code that protoc wrote or that is
# not ours; the system's libraries are not instrumented either. Under libFuzzer it
# stays instrumented: coverage of a parser leads to its fields.
function(piserve_leave_uninstrumented target)
  if(PISERVE_SANITIZE STREQUAL "address")
    target_compile_options(${target} PRIVATE -fno-sanitize=all)
  endif()
endfunction()
