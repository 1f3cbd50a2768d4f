// Expert and weight of a (token, slot) pair. A dense layer has neither: its one expert is 0, with weight 1.
uint pair_expert(uvec2 experts, uint pair, uvec2 state) {
    const uint expert = WordsIn(safe(experts, state)).v[pair];
    return given(experts) ? expert : 0u;
}
float pair_weight(uvec2 weights, uint pair, uvec2 state) {
    const float weight = FloatsIn(safe(weights, state)).v[pair];
    return given(weights) ? weight : 1.0;
}
