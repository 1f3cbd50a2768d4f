#version 460
#extension GL_GOOGLE_include_directive : require
// requires: GL_KHR_cooperative_matrix
// Cooperative matrices of types f16 summed in f16. Only for the shapes of Caps::matrices.   Grid: (any).
#define A float16_t
#define R float16_t
#include "roof_matrix.glsl"
