// What the workgroups of a launch make together, a row at a time, and one of them goes on with: none waits,
// the last to arrive finds what the others wrote through Shared references before they arrived. `arrivals`
// begins with a count for each of MAX_ROWS rows, 0 before a launch and again after it; room for what is
// shared follows.
layout(buffer_reference, std430, buffer_reference_align = 4) coherent buffer Shared { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) coherent buffer SharedVec4 { vec4 v[]; };
shared bool is_last;

uvec2 shared_row(uvec2 arrivals, uint row, uint words) {
    return at(at(arrivals, 4u * MAX_ROWS), row, 4u * words);
}

// Whether this is the last of the row's n workgroups (not gl_NumWorkGroups, for a grid may be launched in
// pieces). Every invocation must call.
bool arrives_last(uvec2 arrivals, uint row, uint n) {
    memoryBarrierBuffer();
    barrier();
    if (thread_index() == 0u) {
        memoryBarrierBuffer(); // what the others wrote before they came here is before its count, too
        is_last = atomicAdd(Shared(arrivals).v[row], 1u) == n - 1u;
        if (is_last) Shared(arrivals).v[row] = 0u;
    }
    barrier();
    memoryBarrierBuffer();
    return is_last;
}
