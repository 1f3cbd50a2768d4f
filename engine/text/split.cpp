// Pre-tokenisation through PCRE2; see split.h. Patterns come from files, so every match runs under a match
// limit, a depth limit, a heap limit and a bounded JIT stack: a regex that explodes is an Error, never a hang
// or a full memory.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/split.h"

#include "base/error.h"
#include "base/log.h"
#include "text/utf8.h"

#include <algorithm>
#include <fmt/format.h>
#include <pcre2.h>

namespace fathom {

namespace {

constexpr uint32_t HEAP_LIMIT_KIB = 256 * 1024;
constexpr size_t JIT_STACK = 1 << 20;
// Steps one match may take: linear in the piece, which all regexes of published tokenizers are.
constexpr uint64_t STEPS = 1'000'000, STEPS_PER_BYTE = 64;

template <auto release> struct Release {
    template <class T> void operator()(T* pointer) const { release(pointer); }
};
using Code = std::unique_ptr<pcre2_code, Release<pcre2_code_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Release<pcre2_compile_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Release<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Release<pcre2_match_context_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Release<pcre2_jit_stack_free>>;

std::string pcre2_message(int code) {
    PCRE2_UCHAR text[256];
    pcre2_get_error_message(code, text, sizeof text);
    return reinterpret_cast<const char*>(text);
}

Code compile(const SplitRule& rule) {
    const std::string pattern = rule.literal ? rule.pattern : pcre2_from_oniguruma(rule.pattern, rule.where);
    const CompileContext context(pcre2_compile_context_create(nullptr));
    check(context != nullptr, "memory for a PCRE2 context");
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    const uint32_t options = rule.literal ? PCRE2_UTF | PCRE2_LITERAL
                                          : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    int error = 0;
    PCRE2_SIZE offset = 0;
    Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &error,
                            &offset, context.get()));
    if (!code)
        throw Error({.what = "malformed regex",
                     .where = rule.where,
                     .got = fmt::format("{} in \"{}\"", pcre2_message(error), printable(rule.pattern, 400))});
    if (const int jit = pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE); jit != 0)
        log::detail("split regex runs interpreted: {}", pcre2_message(jit));
    return code;
}

struct Span {
    size_t begin, end;
    bool match;
};

// Joins or drops matches as `behaviour` says; afterwards every remaining span is a piece (perhaps an empty
// one).
void apply(SplitBehaviour behaviour, std::vector<Span>& spans) {
    if (behaviour == SplitBehaviour::isolated) return;
    if (behaviour == SplitBehaviour::removed) {
        std::erase_if(spans, [](const Span& span) { return span.match; });
        return;
    }
    const bool backwards = behaviour == SplitBehaviour::merged_with_next;
    if (backwards) std::reverse(spans.begin(), spans.end());
    size_t kept = 0;
    bool previous = false;
    for (const Span span : spans) {
        const bool join =
            behaviour == SplitBehaviour::contiguous ? span.match == previous : span.match && !previous;
        previous = span.match;
        if (!join || kept == 0) {
            spans[kept++] = span;
        } else if (backwards) {
            spans[kept - 1].begin = span.begin;
        } else {
            spans[kept - 1].end = span.end;
        }
    }
    spans.resize(kept);
    if (backwards) std::reverse(spans.begin(), spans.end());
}

} // namespace

struct Splitter::Rule {
    SplitRule rule;
    Code code;
};

struct Splitter::Run::State {
    const std::vector<Rule>& rules;
    JitStack stack;
    MatchContext context;
    MatchData data;
    std::vector<std::string_view> pieces, next; // before and after a rule
    std::vector<Span> spans;                    // of one piece

    void find(const Rule& rule, std::string_view piece);
    int match(const Rule& rule, std::string_view piece, size_t from);
};

int Splitter::Run::State::match(const Rule& rule, std::string_view piece, size_t from) {
    const int result = pcre2_match(rule.code.get(), reinterpret_cast<PCRE2_SPTR>(piece.data()), piece.size(),
                                   from, PCRE2_NO_UTF_CHECK, data.get(), context.get());
    if (result < 0 && result != PCRE2_ERROR_NOMATCH)
        throw Error(
            {.what = "a regex of the tokenizer gave up on this text",
             .where = rule.rule.where,
             .expected = fmt::format("a match within limits linear in the text ({} bytes)", piece.size()),
             .got = fmt::format("{}: \"{}\"", pcre2_message(result), printable(rule.rule.pattern, 400))});
    return result;
}

// Fills `spans` with the matches in `piece` and what lies between them. An empty match right after a match is
// passed over by one character, as in Hugging Face's iterator; other empty matches are spans, which matters
// to the joining.
void Splitter::Run::State::find(const Rule& rule, std::string_view piece) {
    const uint64_t steps = std::min<uint64_t>(STEPS + STEPS_PER_BYTE * piece.size(), UINT32_MAX);
    pcre2_set_match_limit(context.get(), static_cast<uint32_t>(steps));
    pcre2_set_depth_limit(context.get(), static_cast<uint32_t>(steps));
    spans.clear();
    const size_t none = SIZE_MAX;
    size_t from = 0, covered = 0, last_end = none;
    while (from <= piece.size() && match(rule, piece, from) >= 0) {
        const PCRE2_SIZE* found = pcre2_get_ovector_pointer(data.get());
        const size_t begin = found[0], end = found[1];
        check(covered <= begin && begin <= end && end <= piece.size(), "matches in order");
        if (begin == end && end == last_end) {
            from += from < piece.size() ? utf8_front(piece.substr(from)).length : 1;
            continue;
        }
        if (covered != begin) spans.push_back({covered, begin, rule.rule.invert});
        spans.push_back({begin, end, !rule.rule.invert});
        from = covered = last_end = end;
    }
    if (covered != piece.size()) spans.push_back({covered, piece.size(), rule.rule.invert});
}

Splitter::Splitter(std::vector<SplitRule> rules) {
    rules_.reserve(rules.size());
    for (SplitRule& rule : rules) {
        Code code = compile(rule);
        rules_.push_back({std::move(rule), std::move(code)});
    }
}
Splitter::Splitter(Splitter&&) noexcept = default;
Splitter& Splitter::operator=(Splitter&&) noexcept = default;
Splitter::~Splitter() = default;

Splitter::Run::Run(const Splitter& splitter) : state_(new State{.rules = splitter.rules_}) {
    state_->stack.reset(pcre2_jit_stack_create(32 * 1024, JIT_STACK, nullptr)); // null where there is no JIT
    state_->context.reset(pcre2_match_context_create(nullptr));
    state_->data.reset(pcre2_match_data_create(1, nullptr));
    check(state_->context && state_->data, "memory for PCRE2");
    pcre2_set_heap_limit(state_->context.get(), HEAP_LIMIT_KIB);
    pcre2_jit_stack_assign(state_->context.get(), nullptr, state_->stack.get());
}
Splitter::Run::~Run() = default;

std::span<const std::string_view> Splitter::Run::pieces(std::string_view text) {
    State& state = *state_;
    state.pieces.assign(text.empty() ? 0 : 1, text);
    for (const Rule& rule : state.rules) {
        state.next.clear();
        for (const std::string_view piece : state.pieces) {
            state.find(rule, piece);
            apply(rule.rule.behaviour, state.spans);
            for (const Span& span : state.spans)
                if (span.begin != span.end)
                    state.next.push_back(piece.substr(span.begin, span.end - span.begin));
        }
        state.pieces.swap(state.next);
    }
    return state.pieces;
}

} // namespace fathom
