# Compiles shaders/*.comp into SPIR-V embedded as C arrays.
#
# A shader declares its variants itself, in comment lines of its own:
#     // variants: FORMAT=F32,F16,BF16
#     // variants: FORMAT=* TIER=BASE,HALF
#     // variants: FORMAT=* TIER=MATRIX requires GL_KHR_cooperative_matrix
#     // variants: TIER=BASE,TILED
# give one module for each format and tier, compiled with -DFORMAT=FORMAT_<format> and
# -DTIER=TIER_<tier>; FORMAT=* means every format of the table in shaders/formats.h, FORMAT=INT8 those
# whose quants are whole numbers. A shader without such a line is one module. A line that requires an
# extension (also `// requires: X` alone, for the shader) is left out where the installed glslang does not
# know it; `fathom --version` says so. Modules are named x, x_f16 or x_half_f16: file name, tier (but for
# BASE) and format, in lower case. glslang's --depfile gives dependencies.

find_program(GLSLANG NAMES glslangValidator glslang REQUIRED)

# Which optional GLSL extensions does this glslang know? One tiny shader each.
set(FATHOM_OPTIONAL_EXTENSIONS GL_KHR_cooperative_matrix GL_EXT_integer_dot_product GL_EXT_bfloat16)
set(FATHOM_GLSL_EXTENSIONS "")
foreach(extension ${FATHOM_OPTIONAL_EXTENSIONS})
  set(probe "${CMAKE_BINARY_DIR}/shaders/probe_${extension}.comp")
  file(WRITE "${probe}" "#version 460\n#extension ${extension} : require\n"
                        "layout(local_size_x = 1) in;\nvoid main() {}\n")
  execute_process(COMMAND ${GLSLANG} -V --target-env vulkan1.3 -o "${probe}.spv" "${probe}"
                  RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
  if(NOT failed)
    list(APPEND FATHOM_GLSL_EXTENSIONS ${extension})
  endif()
endforeach()
execute_process(COMMAND ${GLSLANG} --version OUTPUT_VARIABLE glslang_version ERROR_QUIET)
string(REGEX MATCH "Glslang Version: [0-9]+:([0-9.]+)" _ "${glslang_version}")
set(FATHOM_GLSLANG_VERSION "${CMAKE_MATCH_1}")

file(STRINGS "${PROJECT_SOURCE_DIR}/shaders/formats.h" format_lines REGEX "^#define FORMAT_[A-Z0-9_]+ ")
set(FATHOM_FORMATS "")
foreach(line ${format_lines})
  string(REGEX REPLACE "^#define FORMAT_([A-Z0-9_]+) .*" "\\1" format "${line}")
  list(APPEND FATHOM_FORMATS ${format})
endforeach()

set(FATHOM_INT8_FORMATS Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K)
file(STRINGS "${PROJECT_SOURCE_DIR}/shaders/tiers.h" tier_lines REGEX "^#define TIER_[A-Z0-9]+ ")
set(FATHOM_TIERS "")
foreach(line ${tier_lines})
  string(REGEX REPLACE "^#define TIER_([A-Z0-9]+) .*" "\\1" tier "${line}")
  list(APPEND FATHOM_TIERS ${tier})
endforeach()

# fathom_variants(SHADER OUT): of the shader's variants, "format|tier|extension" each; an absent one is "-".
function(fathom_variants shader out)
  set(found "")
  file(STRINGS "${shader}" requires REGEX "^// requires: ")
  string(REGEX REPLACE "^// requires: *" "" requires "${requires}")
  if(NOT requires)
    set(requires "-")
  endif()
  file(STRINGS "${shader}" lines REGEX "^// variants: ")
  foreach(line ${lines})
    if(NOT line MATCHES "^// variants:( FORMAT=([^ ]+))?( TIER=([^ ]+))?( requires ([A-Za-z0-9_]+))?$")
      message(FATAL_ERROR "${shader}: cannot read its variants line '${line}'")
    endif()
    string(REPLACE "," ";" formats "${CMAKE_MATCH_2}")
    string(REPLACE "," ";" tiers "${CMAKE_MATCH_4}")
    set(extension "${CMAKE_MATCH_6}")
    if(NOT extension)
      set(extension "${requires}")
    endif()
    if(formats STREQUAL "*")
      set(formats ${FATHOM_FORMATS})
    elseif(formats STREQUAL "INT8")
      set(formats ${FATHOM_INT8_FORMATS})
    endif()
    if(NOT formats)
      set(formats "-")
    endif()
    if(NOT tiers)
      set(tiers "-")
    endif()
    foreach(tier ${tiers})
      if(NOT tier STREQUAL "-" AND NOT tier IN_LIST FATHOM_TIERS)
        message(FATAL_ERROR "${shader}: TIER=${tier} is not in shaders/tiers.h (${FATHOM_TIERS})")
      endif()
      foreach(format ${formats})
        if(NOT format STREQUAL "-" AND NOT format IN_LIST FATHOM_FORMATS)
          message(FATAL_ERROR "${shader}: FORMAT=${format} is not in shaders/formats.h (${FATHOM_FORMATS})")
        endif()
        list(APPEND found "${format}|${tier}|${extension}")
      endforeach()
    endforeach()
  endforeach()
  if(NOT lines)
    file(STRINGS "${shader}" strays REGEX "variants: ")
    if(strays)
      message(FATAL_ERROR "${shader}: '${strays}' is no variants line: those start with '// variants: '")
    endif()
    set(found "-|-|${requires}")
  endif()
  set(${out} "${found}" PARENT_SCOPE)
endfunction()

# fathom_shaders(OUT_VAR): adds the build rules; OUT_VAR receives the generated table's .cpp.
function(fathom_shaders out_var)
  set(dir "${CMAKE_BINARY_DIR}/shaders")
  file(GLOB shaders CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/shaders/*.comp")
  set(headers "")
  set(includes "")
  set(rows "")
  set(left_out "")
  foreach(shader ${shaders})
    set_property(DIRECTORY "${PROJECT_SOURCE_DIR}" APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${shader}")
    get_filename_component(name "${shader}" NAME_WE)
    fathom_variants("${shader}" variants)
    foreach(variant ${variants})
      string(REPLACE "|" ";" parts "${variant}")
      list(GET parts 0 format)
      list(GET parts 1 tier)
      list(GET parts 2 extension)
      set(module "${name}")
      set(defines "")
      if(NOT tier STREQUAL "-")
        if(NOT tier STREQUAL "BASE")
          string(APPEND module "_${tier}")
        endif()
        list(APPEND defines "-DTIER=TIER_${tier}")
      endif()
      if(NOT extension STREQUAL "-" AND NOT extension IN_LIST FATHOM_GLSL_EXTENSIONS)
        string(TOLOWER "${module} (${extension}) " text)
        string(FIND "${left_out}" "${text}" at)
        if(at EQUAL -1)
          string(APPEND left_out "${text}")
        endif()
        continue()
      endif()
      if(NOT format STREQUAL "-")
        string(APPEND module "_${format}")
        list(APPEND defines "-DFORMAT=FORMAT_${format}")
      endif()
      string(TOLOWER "${module}" module)
      set(header "${dir}/${module}.h")
      add_custom_command(
        OUTPUT "${header}" DEPFILE "${dir}/${module}.d"
        COMMAND ${GLSLANG} -V --quiet --target-env vulkan1.3 ${defines} "-I${PROJECT_SOURCE_DIR}/shaders"
                --vn "spirv_${module}" --depfile "${dir}/${module}.d" -o "${header}" "${shader}"
        DEPENDS "${shader}" COMMENT "Shader ${module}" VERBATIM)
      list(APPEND headers "${header}")
      string(APPEND includes "#include \"${module}.h\"\n")
      string(APPEND rows "    {\"${module}\", spirv_${module}},\n")
    endforeach()
  endforeach()
  file(CONFIGURE OUTPUT "${dir}/modules.cpp" @ONLY CONTENT [[
// Generated by cmake/shaders.cmake: every compiled shader module, by name.
#include "gpu/modules.h"
@includes@
namespace fathom::gpu {
namespace {
const Module table[] = {
@rows@};
}
std::span<const Module> modules() { return table; }
std::string_view glslang_version() { return "@FATHOM_GLSLANG_VERSION@"; }
std::string_view glsl_extensions() { return "@FATHOM_GLSL_EXTENSIONS@"; }
std::string_view modules_left_out() { return "@left_out@"; }
} // namespace fathom::gpu
]])
  set_property(SOURCE "${dir}/modules.cpp" APPEND PROPERTY OBJECT_DEPENDS "${headers}")
  set_property(SOURCE "${dir}/modules.cpp" PROPERTY INCLUDE_DIRECTORIES "${dir}")
  set(${out_var} "${dir}/modules.cpp" PARENT_SCOPE)
endfunction()
