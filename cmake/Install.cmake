# SPDX-License-Identifier: Apache-2.0
# The C++ client as a package, without the rest:
#   cmake --install BUILD --component client --prefix DIR
# for projects that say find_package(piserve) and link piserve::client. Headers
# keep the paths under which they include each other.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

block()
set(headers ${CMAKE_INSTALL_INCLUDEDIR}/piserve)
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/piserve)

foreach(name client proto)
  set_target_properties(piserve_${name} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(piserve_${name} SYSTEM INTERFACE
    $<INSTALL_INTERFACE:${headers}>)
endforeach()
target_compile_features(piserve_client PUBLIC cxx_std_20)
install(TARGETS piserve_client piserve_proto EXPORT piserve
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT client)
install(EXPORT piserve NAMESPACE piserve:: FILE piserveTargets.cmake
  DESTINATION ${package} COMPONENT client)
install(DIRECTORY clients/cpp/piserve DESTINATION ${headers}/clients/cpp
  COMPONENT client FILES_MATCHING PATTERN "*.h")
install(DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/proto/piserve ${CMAKE_CURRENT_BINARY_DIR}/proto/google
  ${CMAKE_CURRENT_BINARY_DIR}/proto/grpc
  DESTINATION ${headers} COMPONENT client FILES_MATCHING PATTERN "*.pb.h")

file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/piserveConfig.cmake [[
include(CMakeFindDependencyMacro)
find_dependency(Threads)
find_dependency(Protobuf)  # before gRPC
find_dependency(gRPC CONFIG)
find_dependency(absl CONFIG)
include("${CMAKE_CURRENT_LIST_DIR}/piserveTargets.cmake")
]])
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/piserveConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/piserveConfig.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/piserveConfigVersion.cmake
  DESTINATION ${package} COMPONENT client)
endblock()
