// Tells an answer's reasoning from what it says: splits a stream of text at <think> and </think>, also where
// a mark is cut between two pieces of the stream.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom {

class ReasoningStream {
  public:
    struct Part {
        bool reasoning;
        std::string text; // not empty
    };
    // `inside`: whether the stream begins within reasoning, because the prompt opened it.
    explicit ReasoningStream(bool inside) : inside_(inside) {}

    // What is certain now; the beginning of a mark at the end is held back until more comes.
    std::vector<Part> push(std::string_view text);
    std::vector<Part> finish(); // what was held back, which is text
    bool inside() const { return inside_; }

  private:
    bool inside_;
    std::string held_;
};

} // namespace fathom
