// The writers behind the table of chat.cpp. Each appends the prompt of a conversation that the table allows.
#pragma once

#include "text/conversation.h"
#include "text/prompt.h"

namespace fathom::chat_formats {

inline constexpr const char *BOS = "<｜begin▁of▁sentence｜>", *EOS = "<｜end▁of▁sentence｜>",
                            *USER = "<｜User｜>", *ASSISTANT = "<｜Assistant｜>", *EOT = "<|EOT|>",
                            *IM_END = "<|im_end|>", *THINK = "<think>", *END_THINK = "</think>";

void write_plain(const Conversation& conversation, Prompt& prompt); // the first models and V2
void write_coder(const Conversation& conversation, Prompt& prompt);
void write_v3(const Conversation& conversation, Prompt& prompt);
void write_r1(const Conversation& conversation, Prompt& prompt);
void write_v3_1(const Conversation& conversation, Prompt& prompt);
void write_v3_2(const Conversation& conversation, Prompt& prompt); // chat_dsml.cpp
void write_v4(const Conversation& conversation, Prompt& prompt);
void write_kimi(const Conversation& conversation, Prompt& prompt);
void write_glm(const Conversation& conversation, Prompt& prompt); // chat_glm.cpp

} // namespace fathom::chat_formats
