// Dot products (dot.glsl) of a weight row with TOKENS rows of activations in shared memory, each padded with
// zeros to whole chunks of eight: X_CHUNKS of them.
#define TILE_ROWS 1
shared vec4 shared_x[TOKENS * 2 * X_CHUNKS];
struct X { uint first; }; // of the first row
void load_x(X x, uint t, uint chunk, out vec4 a, out vec4 b) {
    const uint i = x.first + 2u * (t * X_CHUNKS + chunk);
    a = shared_x[i];
    b = shared_x[i + 1u];
}
#include "dot.glsl"
void shared_dots(uvec2 w, uint n, out float sum[TILE]) {
    const uvec2 rows[TILE_ROWS] = {w};
    dots(rows, X(0u), n, sum);
}
