// The weight formats, one line each: the build makes a module of every shader with `variants: FORMAT=*` for
// each, and FATHOM_EACH_FORMAT (engine/checkpoint/weight_format.h) follows the same list. A row of a matrix
// is a sequence of planes, each starting at a multiple of 16 bytes: the quants of all its blocks, then their
// high bits, then their scales, with what the file's blocks hold and no more. Decoded by dequant.glsl on the
// GPU and by engine/checkpoint/weight_format.cpp on the CPU; ggml's names, FP8 is E4M3 with a scale for 128 x
// 128 weights.
#define FORMAT_F32 0
#define FORMAT_F16 1
#define FORMAT_BF16 2
#define FORMAT_FP8 3
#define FORMAT_Q8_0 4
#define FORMAT_Q4_0 5
#define FORMAT_Q4_1 6
#define FORMAT_Q5_0 7
#define FORMAT_Q5_1 8
#define FORMAT_Q2_K 9
#define FORMAT_Q3_K 10
#define FORMAT_Q4_K 11
#define FORMAT_Q5_K 12
#define FORMAT_Q6_K 13
#define FORMAT_IQ4_NL 14
#define FORMAT_IQ4_XS 15
#define FORMAT_MXFP4 16
