// The rotated part of an absorbed query, in the layout of a cache row; the same for both forms of kv_b. Wants
// the push constants p of Absorb or AbsorbSplit before it.
void write_rotated(uint t, uint h) {
    const uint position = step_row(p.state, t).position, key = pad4(p.latent_dim);
    const uint base = h * (p.nope_dim + p.rope_dim) + p.nope_dim;
    const uvec2 q = at(p.q, t, 4u * p.q_stride), y = at(p.y, t * p.n_heads + h, 4u * p.row_floats);
    for (uint i = gl_LocalInvocationIndex; i < p.rope_dim / 2u; i += WORKGROUP) {
        const uint a = rope_first(i, p.rope_dim, p.half_split), b = rope_second(i, p.rope_dim, p.half_split);
        const vec2 pair = vec2(FloatsIn(q).v[base + a], FloatsIn(q).v[base + b]);
        const vec2 rotated = rotate(p.rope, position, i, p.rope_dim, pair);
        Floats(y).v[key + a] = rotated.x;
        Floats(y).v[key + b] = rotated.y;
    }
    for (uint i = key + p.rope_dim + gl_LocalInvocationIndex; i < p.row_floats; i += WORKGROUP)
        Floats(y).v[i] = 0.0;
}
