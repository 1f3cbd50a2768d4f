#include "cli/live_source.h"

#include "cli/recorder.h"
#include "session/model_chat.h"

namespace fathom::cli {

server::Served served(const LoadedModel& model) {
    return {.engine = *model.engine,
            .tokenizer = model.tokenizer,
            .format = [&model]() -> const ChatFormat& { return find_chat_format(model.files); },
            .name = model.files.name,
            .bos = model.bos(),
            .allowed = with_known_tokens({}, model).allowed};
}

LiveSource::LiveSource(const LoadedModel& model)
    : model_(model), identity_(identity_of(model, {})), author_(served(model)) {
    model_.engine->listen(queue_);
}

LiveSource::~LiveSource() { model_.engine->ignore(queue_); }

std::string LiveSource::text(Token token) const { return text_of(model_, token); }

} // namespace fathom::cli
