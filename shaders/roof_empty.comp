#version 460
#extension GL_GOOGLE_include_directive : require
// Nothing: what a launch costs by itself.   Grid: (any).
#include "roof.glsl"

void main() {}
