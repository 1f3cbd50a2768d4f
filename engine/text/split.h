// Pre-tokenisation: cuts text into the pieces inside which BPE merges. Rules run one after the other, each on
// every piece the ones before it left, with the piece as the whole subject: a look-ahead never sees the next
// piece. Follows `Split` of Hugging Face tokenizers, whose regexes are Oniguruma's; what that library and
// PCRE2 read differently is translated or refused (see regex.cpp).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

enum class SplitBehaviour { removed, isolated, merged_with_previous, merged_with_next, contiguous };

struct SplitRule {
    std::string pattern;
    bool literal = false; // the pattern is text, not a regex
    SplitBehaviour behaviour = SplitBehaviour::isolated;
    bool invert = false; // what does not match is the delimiter
    std::string where;   // file and key, for messages
};

class Splitter {
  public:
    // Compiles the rules. Throws Error for a regex that is malformed or cannot be translated.
    explicit Splitter(std::vector<SplitRule> rules);
    Splitter(Splitter&&) noexcept;
    Splitter& operator=(Splitter&&) noexcept;
    ~Splitter();

    // What one thread needs to run a Splitter; made once for each encoded text. The Splitter must outlive it.
    class Run {
      public:
        explicit Run(const Splitter& splitter);
        ~Run();
        Run(const Run&) = delete;
        Run& operator=(const Run&) = delete;

        // The pieces of `text` (well-formed UTF-8) in order, none empty; views into `text`, valid until the
        // next call. Throws Error when a regex exceeds its match limit.
        std::span<const std::string_view> pieces(std::string_view text);

      private:
        struct State;
        std::unique_ptr<State> state_;
    };

  private:
    struct Rule;
    std::vector<Rule> rules_;
};

// The same regex for PCRE2 (UTF, UCP, MULTILINE, newline LF). Oniguruma and PCRE2 give one meaning to what is
// let through; anything else throws Error, with `where` in its message.
std::string pcre2_from_oniguruma(std::string_view regex, std::string_view where);

} // namespace fathom
