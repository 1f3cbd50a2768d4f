// Which chat format a model was trained with, found in its files.
#pragma once

#include "checkpoint/checkpoint.h"
#include "text/chat.h"

namespace fathom {

// By the chat template of the files: chat_template.jinja or GGUF's key, else the one in
// tokenizer_config.json. A model without any gets the format of V3.2 or V4 when its model_type says so (they
// were published without), else that of V3, whose marks encoding then requires of its tokenizer. Throws Error
// when the template is of no format known here.
const ChatFormat& find_chat_format(const ModelFiles& files);

} // namespace fathom
