// The step's row t of the trace ring, from the address of what is written in its first row.
uvec2 trace_row(uvec2 state, uvec2 trace, uint trace_stride, uint t) {
    return at(trace, (StepIn(state).header.trace_slot + t) % TRACE_ROWS, 4u * trace_stride);
}
void trace_norm(uvec2 state, uvec2 trace, uint trace_stride, uint t, float scale) {
    Floats(trace_row(state, trace, trace_stride, t)).v[0] = 1.0 / scale;
}
