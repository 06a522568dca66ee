# Builds SentencePiece 0.2.0 (runtime only) from its source on the system's
# protobuf, as a private static library. Debian's package must not be used: it
# carries protobuf 3.14, exports its symbols and crashes beside 3.21. The
# source's own CMakeLists renames folders inside the source tree, hence this one.
#
# SENTENCEPIECE_ROOT names the unpacked source's `sentencepiece` folder.
find_path(SentencePiece_SRC src/sentencepiece_processor.h
  HINTS ${SENTENCEPIECE_ROOT} NO_DEFAULT_PATH REQUIRED)

set(gen ${CMAKE_BINARY_DIR}/sentencepiece)
file(MAKE_DIRECTORY ${gen}/include)
file(WRITE ${gen}/config.h.new
"#define VERSION \"0.2.0\"\n#define PACKAGE \"sentencepiece\"\n#define PACKAGE_STRING \"sentencepiece\"\n")
file(COPY_FILE ${gen}/config.h.new ${gen}/config.h ONLY_IF_DIFFERENT)
file(COPY_FILE ${SentencePiece_SRC}/src/sentencepiece_processor.h
  ${gen}/include/sentencepiece_processor.h ONLY_IF_DIFFERENT)
foreach(p sentencepiece sentencepiece_model)
  add_custom_command(OUTPUT ${gen}/${p}.pb.cc ${gen}/${p}.pb.h
    COMMAND protobuf::protoc --cpp_out=${gen} -I ${SentencePiece_SRC}/src ${SentencePiece_SRC}/src/${p}.proto
    DEPENDS ${SentencePiece_SRC}/src/${p}.proto VERBATIM)
endforeach()

add_library(sentencepiece STATIC ${gen}/sentencepiece.pb.cc ${gen}/sentencepiece_model.pb.cc
  ${SentencePiece_SRC}/third_party/absl/flags/flag.cc)
foreach(s bpe_model char_model error filesystem model_factory model_interface normalizer
        sentencepiece_processor unigram_model util word_model)
  target_sources(sentencepiece PRIVATE ${SentencePiece_SRC}/src/${s}.cc)
endforeach()
target_include_directories(sentencepiece SYSTEM
  PRIVATE ${gen} ${SentencePiece_SRC} ${SentencePiece_SRC}/third_party/darts_clone
          ${SentencePiece_SRC}/src
  INTERFACE ${gen}/include)
target_compile_definitions(sentencepiece PRIVATE _USE_EXTERNAL_PROTOBUF)
# Hidden, or its FLAGS_minloglevel replaces libc10's int of the same name.
target_compile_options(sentencepiece PRIVATE -fvisibility=hidden -w)
target_link_libraries(sentencepiece PUBLIC protobuf::libprotobuf)
piserve_leave_uninstrumented(sentencepiece)
