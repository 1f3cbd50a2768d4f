// The weight formats, one line each: the build makes a module of every shader with `variants: FORMAT=*` for
// each. Blocks of a format are decoded by dequant.glsl on the GPU and by engine/checkpoint/weight_format.h
// on the CPU. Every row of a matrix starts at a multiple of 16 bytes and holds a multiple of 8 weights, the
// last ones zero.
#define FORMAT_F32 0
#define FORMAT_F16 1
#define FORMAT_BF16 2
