// Sums and maxima over a workgroup of WORKGROUP invocations, in an order fixed by the device: within
// subgroups, then over subgroups in turn. Right for subgroups of 4 to 64. Every invocation must call, and
// gets the result.
shared float reduce_parts[WORKGROUP / 4];

float workgroup_sum(float value) {
    const float part = subgroupAdd(value);
    if (gl_NumSubgroups == 1u) return part;
    barrier(); // the previous use of reduce_parts is over
    if (subgroupElect()) reduce_parts[gl_SubgroupID] = part;
    barrier();
    float sum = 0;
    for (uint i = 0; i < gl_NumSubgroups; ++i) sum += reduce_parts[i];
    return sum;
}
float workgroup_max(float value) {
    const float part = subgroupMax(value);
    if (gl_NumSubgroups == 1u) return part;
    barrier();
    if (subgroupElect()) reduce_parts[gl_SubgroupID] = part;
    barrier();
    float largest = reduce_parts[0];
    for (uint i = 1u; i < gl_NumSubgroups; ++i) largest = max(largest, reduce_parts[i]);
    return largest;
}
