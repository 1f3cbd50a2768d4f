// How each tokenizer of the family cuts texts before merging, for the files that only name it (GGUF) or leave
// it to a program (tiktoken's). The regexes are Oniguruma's, like those of tokenizer.json.
#pragma once

#include "text/split.h"

#include <string_view>
#include <vector>

namespace fathom {

enum class PreTokenizer { deepseek_llm, deepseek_coder, deepseek_v3, kimi, glm };

// The rules in order; `where` names them in messages.
std::vector<SplitRule> splits_of(PreTokenizer kind, std::string_view where);

} // namespace fathom
