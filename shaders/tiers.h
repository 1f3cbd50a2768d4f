// How a kernel's matrix product works (product.glsl). A module is compiled for one: cmake/shaders.cmake
// defines TIER. Modules bear its name in lower case: matmul_int8_q4_k; those of the base tier none:
// matmul_q4_k. Attention (expanded_attention, cached_attention) has base kernels of its own kind, and tiles.
#define TIER_BASE 0   // a few lanes share a dot product, in f32: tile.glsl
#define TIER_INT8 1   // the same, activations rounded to bytes, four products in an instruction: int8.glsl
#define TIER_TILED 2  // a workgroup shares tiles of weights and activations, in f32: block.glsl
#define TIER_HALF 3   // the same, in f16, sums of 32 products in f32
#define TIER_MATRIX 4 // the same, in f16 by cooperative matrices, sums in f32
