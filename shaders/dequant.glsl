// Weights of the FORMAT this module is compiled for, as floats. A row is made of planes (formats.h); within a
// plane the weights stand in order, the first in the lowest bits, so that a chunk of eight neighbours is one
// word of 4-bit quants, half a word of 2-bit ones, a byte of single bits.
//
// load8() gives one chunk, rounded as ggml rounds it: `precise` keeps a product and a sum from becoming one
// fma. Dot products take a span of 32 weights at a time (dot.glsl): load_span() reads what it holds in loads
// of 16 bytes where the format has as many, span8() gives its chunk i still without the scale,
// span_scale() the scale to apply to the chunk's sum; of formats with a least value the scale is applied
// already.
#if FORMAT == FORMAT_F32
void load8(uvec2 row, uint chunk, uint cols, out vec4 a, out vec4 b) {
    a = Vec4In(row).v[2u * chunk];
    b = Vec4In(row).v[2u * chunk + 1u];
}
struct Span { uvec2 row; uint first; };
Span load_span(uvec2 row, uint span, uint cols) { return Span(row, 4u * span); }
void span8(Span s, uint i, out vec4 a, out vec4 b) { load8(s.row, s.first + i, 0u, a, b); }
float span_scale(Span s, uint i) { return 1.0; }
#elif FORMAT == FORMAT_F16 || FORMAT == FORMAT_BF16
vec2 unpack2(uint word) {
#if FORMAT == FORMAT_F16
    return unpackHalf2x16(word);
#else
    return vec2(uintBitsToFloat(word << 16), uintBitsToFloat(word & 0xFFFF0000u));
#endif
}
void load8(uvec2 row, uint chunk, uint cols, out vec4 a, out vec4 b) {
    const uvec4 w = Words4In(row).v[chunk];
    a = vec4(unpack2(w.x), unpack2(w.y));
    b = vec4(unpack2(w.z), unpack2(w.w));
}
struct Span { uvec2 row; uint first; };
Span load_span(uvec2 row, uint span, uint cols) { return Span(row, 4u * span); }
void span8(Span s, uint i, out vec4 a, out vec4 b) { load8(s.row, s.first + i, 0u, a, b); }
float span_scale(Span s, uint i) { return 1.0; }
#else

// BLOCK weights share a block; QUANTS, HIGH and so on are the bytes that a block has in each plane, in order.
#if FORMAT == FORMAT_FP8
#define BLOCK 128
#define QUANTS 128 // then 4: the scale, f32
#elif FORMAT == FORMAT_Q8_0
#define BLOCK 32
#define QUANTS 32 // then 2: the scale, f16
#elif FORMAT == FORMAT_Q4_0 || FORMAT == FORMAT_IQ4_NL
#define BLOCK 32
#define QUANTS 16 // then 2: the scale, f16
#elif FORMAT == FORMAT_Q4_1
#define BLOCK 32
#define QUANTS 16 // then 4: scale and least value, f16
#elif FORMAT == FORMAT_Q5_0
#define BLOCK 32
#define QUANTS 16
#define HIGH 4 // then 2: the scale, f16
#elif FORMAT == FORMAT_Q5_1
#define BLOCK 32
#define QUANTS 16
#define HIGH 4 // then 4: scale and least value, f16
#elif FORMAT == FORMAT_MXFP4
#define BLOCK 32
#define QUANTS 16 // then 1: the exponent
#elif FORMAT == FORMAT_Q2_K
#define BLOCK 256
#define QUANTS 64
#define SCALES 16 // then 4: scales of scales and of least values, f16
#elif FORMAT == FORMAT_Q3_K
#define BLOCK 256
#define QUANTS 64
#define HIGH 32
#define SCALES 12 // then 2: the scale of scales, f16
#elif FORMAT == FORMAT_Q4_K
#define BLOCK 256
#define QUANTS 128 // then 16: scales of scales and of least values, f16; eight of each in 6 bits
#elif FORMAT == FORMAT_Q5_K
#define BLOCK 256
#define QUANTS 128
#define HIGH 32 // then 16, as Q4_K
#elif FORMAT == FORMAT_Q6_K
#define BLOCK 256
#define QUANTS 128
#define HIGH 64
#define SCALES 16 // then 2: the scale of scales, f16
#elif FORMAT == FORMAT_IQ4_XS
#define BLOCK 256
#define QUANTS 128 // then 8: the scale of scales, f16; eight scales in 2 + 4 bits
#endif

// Words before the plane that follows planes of these bytes a block.
uint plane_words(uint blocks, uint bytes) { return (blocks * bytes + 15u) / 16u * 4u; }
uint high_plane(uint blocks) { return plane_words(blocks, QUANTS); }
#ifdef HIGH
uint scale_plane(uint blocks) { return high_plane(blocks) + plane_words(blocks, HIGH); }
#else
uint scale_plane(uint blocks) { return high_plane(blocks); }
#endif
#ifdef SCALES
uint last_plane(uint blocks) { return scale_plane(blocks) + plane_words(blocks, SCALES); }
#else
uint last_plane(uint blocks) { return scale_plane(blocks); }
#endif

uint word(uvec2 row, uint i) { return WordsIn(row).v[i]; }
uint byte_of(uvec2 row, uint plane, uint i) { return word(row, plane + i / 4u) >> (8u * (i % 4u)) & 255u; }
float half_of(uvec2 row, uint plane, uint i) {
    const vec2 pair = unpackHalf2x16(word(row, plane + i / 2u));
    return (i & 1u) != 0u ? pair.y : pair.x;
}
// Four fields of `bits` bits, from the lowest.
uvec4 fields(uint w, uint bits) {
    return uvec4(w, w >> bits, w >> (2u * bits), w >> (3u * bits)) & ((1u << bits) - 1u);
}

// The words that hold the low quants of a chunk: two of 8 bits each, one of 4, half a one of 2 in the low
// half; and what they hold, two times four.
#if QUANTS == BLOCK
#define CHUNK_WORDS uvec2
CHUNK_WORDS quant_words(uvec2 row, uint chunk) { return Words2In(row).v[chunk]; }
void quants8(CHUNK_WORDS w, out uvec4 a, out uvec4 b) {
    a = fields(w.x, 8u);
    b = fields(w.y, 8u);
}
#elif 2 * QUANTS == BLOCK
#define CHUNK_WORDS uint
CHUNK_WORDS quant_words(uvec2 row, uint chunk) { return word(row, chunk); }
void quants8(CHUNK_WORDS w, out uvec4 a, out uvec4 b) {
    a = fields(w, 4u);
    b = fields(w >> 16, 4u);
}
#else
#define CHUNK_WORDS uint
CHUNK_WORDS quant_words(uvec2 row, uint chunk) { return word(row, chunk / 2u) >> (16u * (chunk % 2u)); }
void quants8(CHUNK_WORDS w, out uvec4 a, out uvec4 b) {
    a = fields(w, 2u);
    b = fields(w >> 8, 2u);
}
#endif

#ifdef HIGH
// The high bits of a chunk from the bits that hold them, the lowest first: one bit each, or two (Q6_K).
#if 8 * HIGH == BLOCK
#define HIGH_BITS 1u
uint high_word(uvec2 row, uint plane, uint chunk) { return byte_of(row, plane, chunk); }
#else
#define HIGH_BITS 2u
uint high_word(uvec2 row, uint plane, uint chunk) {
    return word(row, plane + chunk / 2u) >> (16u * (chunk % 2u));
}
#endif
void add_high8(uint w, inout uvec4 a, inout uvec4 b) {
    const uint shift = FORMAT == FORMAT_Q3_K ? 2u : 4u;
    a |= fields(w, HIGH_BITS) << shift;
    b |= fields(w >> (4u * HIGH_BITS), HIGH_BITS) << shift;
}
#endif

#if FORMAT == FORMAT_IQ4_NL || FORMAT == FORMAT_IQ4_XS
const float LEVELS[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
vec4 levels(uvec4 q) { return vec4(LEVELS[q.x], LEVELS[q.y], LEVELS[q.z], LEVELS[q.w]); }
#elif FORMAT == FORMAT_MXFP4
// E2M1, doubled: 0 1 2 3 4 6 8 12, and the negatives.
vec4 levels(uvec4 q) {
    const vec4 size = vec4((uvec4(0xC8643210u) >> (4u * (q & 7u))) & 15u);
    return mix(size, -size, notEqual(q & 8u, uvec4(0u)));
}
#elif FORMAT == FORMAT_Q8_0
vec4 levels(uvec4 q) { return vec4(ivec4(q << 24) >> 24); }
#elif FORMAT == FORMAT_FP8
// E4M3: subnormals are multiples of 2^-9; the two codes without a number do not occur (the loader refuses
// them).
vec4 levels(uvec4 q) {
    const uvec4 size = q & 127u;
    const vec4 normal = uintBitsToFloat((size << 20) + (120u << 23));
    const vec4 value = mix(normal, vec4(size) * (1.0 / 512.0), lessThan(size, uvec4(8u)));
    return mix(value, -value, greaterThan(q, uvec4(127u)));
}
#else
vec4 levels(uvec4 q) { return vec4(q); }
#endif

// The scale and the subtracted part of the block, or part of a block, that holds a chunk.
#if FORMAT == FORMAT_Q4_K || FORMAT == FORMAT_Q5_K
vec2 scale_of(uvec2 row, uint blocks, uint chunk) {
    const uvec4 head = Words4In(row).v[last_plane(blocks) / 4u + chunk / 32u];
    const uint group = chunk / 4u % 8u;
    const uvec3 s = head.yzw >> (8u * (group % 4u));
    const uvec2 low = s.xy & 63u;
    const uvec2 high = uvec2(s.z & 15u, s.z >> 4 & 15u) | (s.xy >> 6 & 3u) << 4;
    precise const vec2 scale = unpackHalf2x16(head.x) * vec2(group < 4u ? low : high);
    return scale;
}
#elif FORMAT == FORMAT_Q2_K
vec2 scale_of(uvec2 row, uint blocks, uint chunk) {
    const uint s = byte_of(row, scale_plane(blocks), chunk / 2u);
    const vec2 scales = unpackHalf2x16(word(row, last_plane(blocks) + chunk / 32u));
    precise const vec2 scale = scales * vec2(s & 15u, s >> 4);
    return scale;
}
#elif FORMAT == FORMAT_Q3_K
vec2 scale_of(uvec2 row, uint blocks, uint chunk) {
    const uint plane = scale_plane(blocks) + chunk / 32u * 3u, group = chunk / 2u % 16u;
    const uint low = word(row, plane + group / 4u % 2u) >> (8u * (group % 4u) + 4u * (group / 8u)) & 15u;
    const uint high = word(row, plane + 2u) >> (8u * (group % 4u) + 2u * (group / 4u)) & 3u;
    precise const float scale =
        half_of(row, last_plane(blocks), chunk / 32u) * (float(low | high << 4) - 32.0);
    return vec2(scale, 0);
}
#elif FORMAT == FORMAT_Q6_K
vec2 scale_of(uvec2 row, uint blocks, uint chunk) {
    const uint s = byte_of(row, scale_plane(blocks), chunk / 2u);
    precise const float scale = half_of(row, last_plane(blocks), chunk / 32u) * float(int(s << 24) >> 24);
    return vec2(scale, 0);
}
#elif FORMAT == FORMAT_IQ4_XS
vec2 scale_of(uvec2 row, uint blocks, uint chunk) {
    const uint plane = last_plane(blocks) + chunk / 32u * 2u, group = chunk / 4u % 8u;
    const uint head = word(row, plane);
    const uint low = word(row, plane + 1u) >> (4u * group) & 15u, high = head >> (16u + 2u * group) & 3u;
    precise const float scale = unpackHalf2x16(head).x * (float(low | high << 4) - 32.0);
    return vec2(scale, 0);
}
#elif FORMAT == FORMAT_Q4_1 || FORMAT == FORMAT_Q5_1
vec2 scale_of(uvec2 row, uint blocks, uint chunk) {
    const vec2 pair = unpackHalf2x16(word(row, last_plane(blocks) + chunk / 4u));
    return vec2(pair.x, -pair.y);
}
#elif FORMAT == FORMAT_MXFP4
vec2 scale_of(uvec2 row, uint blocks, uint chunk) {
    const uint e = byte_of(row, last_plane(blocks), chunk / 4u); // 2^(e - 128), subnormal below 2
    return vec2(uintBitsToFloat(e < 2u ? 0x00200000u << e : (e - 1u) << 23), 0);
}
#elif FORMAT == FORMAT_FP8
vec2 scale_of(uvec2 row, uint blocks, uint chunk) {
    return vec2(uintBitsToFloat(word(row, last_plane(blocks) + chunk / 16u)), 0);
}
#else
vec2 scale_of(uvec2 row, uint blocks, uint chunk) {
    return vec2(half_of(row, last_plane(blocks), chunk / 4u), 0);
}
#endif

// What a quant of zero stands for.
#if FORMAT == FORMAT_Q4_0
#define ZERO 8.0
#elif FORMAT == FORMAT_Q5_0
#define ZERO 16.0
#elif FORMAT == FORMAT_Q6_K
#define ZERO 32.0
#elif FORMAT == FORMAT_Q3_K
#define ZERO 4.0
#else
#define ZERO 0.0
#endif

#if FORMAT == FORMAT_Q2_K || FORMAT == FORMAT_Q4_K || FORMAT == FORMAT_Q5_K || FORMAT == FORMAT_Q4_1 ||      \
    FORMAT == FORMAT_Q5_1
#define LEAST // a least value is subtracted
#endif

void load8(uvec2 row, uint chunk, uint cols, out vec4 a, out vec4 b) {
    const uint blocks = (cols + BLOCK - 1u) / BLOCK;
    uvec4 qa, qb;
    quants8(quant_words(row, chunk), qa, qb);
#ifdef HIGH
    add_high8(high_word(row, high_plane(blocks), chunk), qa, qb);
#endif
    const vec2 scale = scale_of(row, blocks, chunk);
    precise const vec4 scaled_a = scale.x * (levels(qa) - ZERO), scaled_b = scale.x * (levels(qb) - ZERO);
#ifdef LEAST
    precise const vec4 shifted_a = scaled_a - scale.y, shifted_b = scaled_b - scale.y;
    a = shifted_a;
    b = shifted_b;
#else
    a = scaled_a;
    b = scaled_b;
#endif
}

struct Span {
#if QUANTS == BLOCK
    uvec4 quants[2];
#elif 2 * QUANTS == BLOCK
    uvec4 quants;
#else
    uvec2 quants;
#endif
#if defined(HIGH) && 8 * HIGH == BLOCK
    uint high;
#elif defined(HIGH)
    uvec2 high;
#endif
    vec2 scales[2]; // of its halves, which formats with a scale for 16 weights tell apart
};

Span load_span(uvec2 row, uint span, uint cols) {
    const uint blocks = (cols + BLOCK - 1u) / BLOCK;
    Span s;
#if QUANTS == BLOCK
    s.quants[0] = Words4In(row).v[2u * span];
    s.quants[1] = Words4In(row).v[2u * span + 1u];
#elif 2 * QUANTS == BLOCK
    s.quants = Words4In(row).v[span];
#else
    s.quants = Words2In(row).v[span];
#endif
#if defined(HIGH) && 8 * HIGH == BLOCK
    s.high = word(row, high_plane(blocks) + span);
#elif defined(HIGH)
    s.high = Words2In(row).v[high_plane(blocks) / 2u + span];
#endif
    s.scales[0] = scale_of(row, blocks, 4u * span);
#if FORMAT == FORMAT_Q2_K || FORMAT == FORMAT_Q3_K || FORMAT == FORMAT_Q6_K
    s.scales[1] = scale_of(row, blocks, 4u * span + 2u);
#else
    s.scales[1] = s.scales[0];
#endif
    return s;
}

void span8(Span s, uint i, out vec4 a, out vec4 b) { // i is a constant wherever loops are unrolled
    uvec4 qa, qb;
#if QUANTS == BLOCK
    quants8(i % 2u == 0u ? s.quants[i / 2u].xy : s.quants[i / 2u].zw, qa, qb);
#elif 2 * QUANTS == BLOCK
    quants8(s.quants[i], qa, qb);
#else
    quants8(s.quants[i / 2u] >> (16u * (i % 2u)), qa, qb);
#endif
#if defined(HIGH) && 8 * HIGH == BLOCK
    add_high8(s.high >> (8u * i), qa, qb);
#elif defined(HIGH)
    add_high8(s.high[i / 2u] >> (16u * (i % 2u)), qa, qb);
#endif
    a = levels(qa) - ZERO;
    b = levels(qb) - ZERO;
#ifdef LEAST
    const vec2 scale = s.scales[i / 2u];
    a = fma(a, vec4(scale.x), vec4(-scale.y));
    b = fma(b, vec4(scale.x), vec4(-scale.y));
#endif
}

float span_scale(Span s, uint i) {
#ifdef LEAST
    return 1.0;
#else
    return s.scales[i / 2u].x;
#endif
}
#endif
