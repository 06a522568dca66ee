# The three kinds of target in this project.
#
#   piserve_library(NAME name SRCS ... DEPS ... [PUBLIC_DEPS ...])
#     a static library piserve_<name>, alias piserve::<name>
#   piserve_binary(NAME name SRCS ... DEPS ...)
#   piserve_test(NAME name SRCS ... DEPS ... [LABELS ...] [ARGS ...])
#     a gtest binary registered with ctest and run in the source folder, which
#     PISERVE_SOURCE_DIR names (relative, so that a cached object serves any
#     clone); label `tsan` adds it to the thread sanitizer's suite
#   piserve_benchmark(NAME name SRCS ... DEPS ...)
#     a Google Benchmark binary, built by the target `benchmarks`
#   piserve_fuzz(NAME name SRCS ... DEPS ... CORPUS dir)
#     with PISERVE_FUZZ: a libFuzzer binary; otherwise a ctest that runs the
#     same entry point once over every file of the kept corpus. `dir` is
#     tests/fuzz/corpus/<name>, relative to the source folder.

# cudart and cupti, which libtorch_cpu needs at run time, come from the toolkit or
# from the small wheels that `make setup` unpacks.
set(PISERVE_EXTRA_RPATH
  ${PROJECT_SOURCE_DIR}/.deps/nvidia/nvidia/cu13/lib
  /usr/local/cuda/lib64 /usr/local/cuda/extras/CUPTI/lib64)

add_custom_target(benchmarks)
add_custom_target(fuzzers)
add_custom_target(tsan_tests)
add_custom_target(cpp_tests)  # all that ctest runs

function(piserve_finish target)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${target} PRIVATE
    "$<$<COMPILE_LANGUAGE:CXX>:${PISERVE_WARNINGS}>")
endfunction()

function(piserve_rpath target)
  # DT_RPATH, not DT_RUNPATH: libtorch's own dependencies must inherit it.
  target_link_options(${target} PRIVATE -Wl,--disable-new-dtags)
  set_target_properties(${target} PROPERTIES BUILD_RPATH "${PISERVE_EXTRA_RPATH}")
endfunction()

function(piserve_library)
  cmake_parse_arguments(A "" "NAME" "SRCS;DEPS" ${ARGN})
  add_library(piserve_${A_NAME} STATIC ${A_SRCS})
  add_library(piserve::${A_NAME} ALIAS piserve_${A_NAME})
  target_link_libraries(piserve_${A_NAME} PUBLIC ${A_DEPS})
  piserve_finish(piserve_${A_NAME})
endfunction()

function(piserve_binary)
  cmake_parse_arguments(A "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${A_NAME} ${A_SRCS})
  target_link_libraries(${A_NAME} PRIVATE ${A_DEPS})
  piserve_finish(${A_NAME})
  piserve_rpath(${A_NAME})
  set_target_properties(${A_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
endfunction()

function(piserve_test)
  cmake_parse_arguments(A "" "NAME;TIMEOUT" "SRCS;DEPS;LABELS;ARGS" ${ARGN})
  if(NOT PISERVE_TESTS)
    return()
  endif()
  add_executable(${A_NAME} ${A_SRCS})
  target_link_libraries(${A_NAME} PRIVATE ${A_DEPS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${A_NAME} PRIVATE PISERVE_SOURCE_DIR=".")
  piserve_finish(${A_NAME})
  piserve_rpath(${A_NAME})
  add_dependencies(cpp_tests ${A_NAME})
  add_test(NAME ${A_NAME} COMMAND ${A_NAME} ${A_ARGS}
    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 300)
  endif()
  set_tests_properties(${A_NAME} PROPERTIES LABELS "${A_LABELS}" TIMEOUT ${A_TIMEOUT})
  if("tsan" IN_LIST A_LABELS)
    add_dependencies(tsan_tests ${A_NAME})
  endif()
endfunction()

function(piserve_benchmark)
  cmake_parse_arguments(A "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${A_NAME} EXCLUDE_FROM_ALL ${A_SRCS})
  target_link_libraries(${A_NAME} PRIVATE ${A_DEPS} benchmark::benchmark)
  target_compile_definitions(${A_NAME} PRIVATE PISERVE_SOURCE_DIR=".")
  piserve_finish(${A_NAME})
  piserve_rpath(${A_NAME})
  set_target_properties(${A_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
  add_dependencies(benchmarks ${A_NAME})
endfunction()

function(piserve_fuzz)
  cmake_parse_arguments(A "" "NAME;CORPUS" "SRCS;DEPS" ${ARGN})
  if(NOT PISERVE_TESTS)
    return()
  endif()
  if(PISERVE_FUZZ)
    add_executable(${A_NAME} ${A_SRCS})
    target_link_options(${A_NAME} PRIVATE -fsanitize=fuzzer)
    set_target_properties(${A_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
  else()
    add_executable(${A_NAME} ${A_SRCS} ${PROJECT_SOURCE_DIR}/tests/fuzz/replay_main.cc)
    add_test(NAME ${A_NAME} COMMAND ${A_NAME} ${A_CORPUS}
      WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${A_NAME} PROPERTIES LABELS "corpus" TIMEOUT 120)
    add_dependencies(cpp_tests ${A_NAME})
  endif()
  target_link_libraries(${A_NAME} PRIVATE ${A_DEPS})
  piserve_finish(${A_NAME})
  piserve_rpath(${A_NAME})
  add_dependencies(fuzzers ${A_NAME})
endfunction()
