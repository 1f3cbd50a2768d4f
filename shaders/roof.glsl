// What the kernels that measure a device's roofs share (engine/bench/roofs.cpp): numbers that no compiler can
// foresee, and a use for results that none can leave out.
#include "common.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { RoofProbe p; };

uint roof_seed() { return p.seed + gl_GlobalInvocationID.x; }
// Never true for the seeds in use; a compiler cannot know.
void roof_use(float result) {
    if (result == 1.25e-30) Floats(p.y).v[0] = result;
}
