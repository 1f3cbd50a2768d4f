// Reads calls of tools out of answers, and keeps answers to them, in the syntax of each chat format that has
// a place for tools.
#pragma once

#include "text/chat.h"
#include "text/grammar.h"

#include <string>
#include <string_view>
#include <vector>

namespace fathom {

class ToolCallStream {
  public:
    // `tools` tell which arguments are strings where the syntax does not. The format must have tools.
    ToolCallStream(const ChatFormat& format, std::vector<ToolDefinition> tools);

    std::string push(std::string_view text); // what certainly belongs to no call
    struct End {
        std::string text; // of no call: also whatever looked like one and is none
        std::vector<ToolCall> calls;
    };
    End finish();

  private:
    const ChatFormat& format_;
    std::vector<ToolDefinition> tools_;
    std::string held_;
    bool calling_ = false; // the mark that calls begin with was there
};

// The calls of a text that begins with that mark; none where it makes no sense. Arguments are JSON objects.
std::vector<ToolCall> read_tool_calls(const ChatFormat& format, const std::vector<ToolDefinition>& tools,
                                      std::string_view text);

// What an answer is that calls one of the tools, or the one of that name, and says nothing else. Throws Error
// for a name that is none, and for parameters that a grammar cannot hold.
std::shared_ptr<const Grammar> tool_call_grammar(const ChatFormat& format,
                                                 const std::vector<ToolDefinition>& tools,
                                                 const std::string& name);

} // namespace fathom
