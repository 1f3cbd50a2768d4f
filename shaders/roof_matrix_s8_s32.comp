#version 460
#extension GL_GOOGLE_include_directive : require
// requires: GL_KHR_cooperative_matrix
// Cooperative matrices of types s8 summed in s32. Only for the shapes of Caps::matrices.   Grid: (any).
#define A int8_t
#define R int32_t
#include "roof_matrix.glsl"
