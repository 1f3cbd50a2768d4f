# The Vulkan drivers that tests run on, each a driver file and an environment. Both are software, so every
# machine has them: Mesa's lavapipe, and SwiftShader, which Debian's chromium package carries. Validation is
# on everywhere; the engine loads the layer itself and fails on its first message.
set(FATHOM_TEST_CACHE "${CMAKE_CURRENT_BINARY_DIR}/cache")
find_file(FATHOM_LAVAPIPE NAMES lvp_icd.json lvp_icd.${CMAKE_SYSTEM_PROCESSOR}.json
          PATHS /usr/share/vulkan/icd.d /usr/local/share/vulkan/icd.d NO_CACHE)
find_file(FATHOM_SWIFTSHADER NAMES vk_swiftshader_icd.json
          PATHS /usr/lib/chromium /usr/lib64/chromium-browser /usr/share/vulkan/icd.d NO_CACHE)

# fathom_driver(NAME LABEL FILE [VARIABLE=VALUE...]): sets FATHOM_LABEL_NAME and
# FATHOM_ENVIRONMENT_NAME; a later variable overrides an earlier one. A driver that is not installed is
# a failing test, not a missing one.
function(fathom_driver name label file)
  set(FATHOM_LABEL_${name} ${label} PARENT_SCOPE)
  if(NOT file)
    set(FATHOM_MISSING_${name} "${label} is not installed" PARENT_SCOPE)
  endif()
  # The older name of VK_DRIVER_FILES too, in case it is set where the tests are started.
  set(FATHOM_ENVIRONMENT_${name} "VK_DRIVER_FILES=${file}" "VK_ICD_FILENAMES=${file}"
      "XDG_CACHE_HOME=${FATHOM_TEST_CACHE}" FATHOM_VALIDATION=1 ${ARGN} PARENT_SCOPE)
endfunction()

# Without threads of its own lavapipe runs a launch where it is called: for models as small as the tests', to
# wake threads takes longer than all else (test_gpu 216 s in place of 49). With 4 and 16 lanes it has them, so
# that workgroups run beside each other.
fathom_driver(lavapipe lavapipe "${FATHOM_LAVAPIPE}" LP_NUM_THREADS=0)
fathom_driver(lavapipe-as-it-is lavapipe "${FATHOM_LAVAPIPE}") # to be measured
fathom_driver(swiftshader swiftshader "${FATHOM_SWIFTSHADER}")
# lavapipe's subgroup is as wide as its vectors: 8 lanes on AVX2, and 4 and 16 here.
# Its shader cache does not know. Unoptimised, shaders are compiled in two thirds of the time.
fathom_driver(lavapipe-4 lavapipe "${FATHOM_LAVAPIPE}"
              LP_NATIVE_VECTOR_WIDTH=128 MESA_SHADER_CACHE_DISABLE=true GALLIVM_PERF=nopt)
fathom_driver(lavapipe-16 lavapipe "${FATHOM_LAVAPIPE}"
              LP_NATIVE_VECTOR_WIDTH=512 MESA_SHADER_CACHE_DISABLE=true GALLIVM_PERF=nopt)
# GPU-assisted validation checks every access against the buffer behind its address.
fathom_driver(lavapipe-assisted lavapipe "${FATHOM_LAVAPIPE}" LP_NUM_THREADS=0 FATHOM_VALIDATION=gpu)
