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
