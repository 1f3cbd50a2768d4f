// The sum of products of four packed signed bytes: OpSDot of SPV_KHR_integer_dot_product, for which GLSL has
// names only from glslang 15.2 on. Only where Caps::int8_dot.
#extension GL_EXT_spirv_intrinsics : require
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [ 6018, 6019 ],
                  id = 4450) int dot_packed_as(uint a, uint b, spirv_literal int format);
int dot_packed(uint a, uint b) { return dot_packed_as(a, b, 0); }
