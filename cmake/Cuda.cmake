# nvcc for the engine's kernels. CMake 3.25 knows no C++20 for nvcc 13, and the
# architecture must be set before the language is enabled.
set(CMAKE_CUDA_ARCHITECTURES 90a)       # wgmma, setmaxnreg
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # the one libtorch uses
enable_language(CUDA)
if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
find_package(CUDAToolkit REQUIRED)

# CUTLASS's headers, as setup.sh unpacks them.
set(PISERVE_CUTLASS
    "${CMAKE_SOURCE_DIR}/.deps/cutlass/cutlass_library/source"
    CACHE PATH "CUTLASS sources")
add_library(piserve_cutlass INTERFACE)
add_library(piserve::cutlass ALIAS piserve_cutlass)
target_include_directories(piserve_cutlass SYSTEM INTERFACE
  "${PISERVE_CUTLASS}/include" "${PISERVE_CUTLASS}/tools/util/include")
# Instructions for tiles that are no power of two; programmatic dependent launch.
target_compile_definitions(piserve_cutlass INTERFACE
  CUTE_SM90_EXTENDED_MMA_SHAPES_ENABLED CUTLASS_ENABLE_GDC_FOR_SM90=1)
target_compile_options(piserve_cutlass INTERFACE
  $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>)
