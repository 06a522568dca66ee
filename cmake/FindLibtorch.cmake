# Finds the libtorch inside an unpacked torch wheel: targets Libtorch::cpu and,
# when CUDA is enabled, Libtorch::cuda. The wheel's own find_package(Torch) needs
# CUDA even for CPU use and a newer CMake than Debian's.
#
# LIBTORCH_ROOT names the wheel's `torch` folder.
find_path(Libtorch_INCLUDE_DIR ATen/ATen.h HINTS ${LIBTORCH_ROOT} $ENV{LIBTORCH_ROOT}
  PATH_SUFFIXES include NO_DEFAULT_PATH)
foreach(lib c10 torch_cpu c10_cuda torch_cuda)
  find_library(Libtorch_${lib}_LIBRARY ${lib} HINTS ${Libtorch_INCLUDE_DIR}/../lib NO_DEFAULT_PATH)
  if(Libtorch_${lib}_LIBRARY AND NOT TARGET Libtorch::${lib})
    add_library(Libtorch::${lib} SHARED IMPORTED)
    set_target_properties(Libtorch::${lib} PROPERTIES IMPORTED_LOCATION "${Libtorch_${lib}_LIBRARY}")
  endif()
endforeach()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Libtorch REQUIRED_VARS
  Libtorch_torch_cpu_LIBRARY Libtorch_c10_LIBRARY Libtorch_INCLUDE_DIR)

if(Libtorch_FOUND AND NOT TARGET Libtorch::cpu)
  add_library(Libtorch::cpu INTERFACE IMPORTED)
  # The wheel ships headers of google/protobuf 3.13 and fmt 12: they must come
  # after the system's, hence -idirafter and never -I or -isystem.
  target_compile_options(Libtorch::cpu INTERFACE
    "SHELL:$<$<COMPILE_LANGUAGE:CXX>:-idirafter ${Libtorch_INCLUDE_DIR}>")
  target_link_libraries(Libtorch::cpu INTERFACE Libtorch::torch_cpu Libtorch::c10)
  # libtorch_cpu refers to CUDA libraries that a CPU machine does not have.
  target_link_options(Libtorch::cpu INTERFACE -Wl,--allow-shlib-undefined)
endif()
if(Libtorch_FOUND AND TARGET CUDA::cudart AND Libtorch_torch_cuda_LIBRARY AND NOT TARGET Libtorch::cuda)
  add_library(Libtorch::cuda INTERFACE IMPORTED)
  # No symbol of libtorch_cuda is named; its initialisers register the kernels.
  target_link_libraries(Libtorch::cuda INTERFACE Libtorch::cpu Libtorch::c10_cuda
    -Wl,--push-state,--no-as-needed Libtorch::torch_cuda -Wl,--pop-state CUDA::cudart)
endif()
