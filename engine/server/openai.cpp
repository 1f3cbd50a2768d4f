#include "server/openai.h"

#include "base/error.h"
#include "base/json.h"
#include "text/json_grammar.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>

namespace fathom::server {

using nlohmann::json;
using nlohmann::ordered_json;

std::string dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

json ApiError::body() const {
    return {{"error",
             {{"message", what()},
              {"type", type},
              {"param", param.empty() ? json() : json(param)},
              {"code", status == 401 ? json("invalid_api_key") : json()}}}};
}

ApiError bad_request(const std::string& message, const std::string& key) {
    return {400, "invalid_request_error", message, key};
}

namespace {

// A value of the request, or nothing where it is absent or null.
const json* given(const json& from, const char* key) {
    const auto it = from.find(key);
    return it == from.end() || it->is_null() ? nullptr : &*it;
}

// Whether an object says this text; a value of another kind is another text.
bool says(const json& from, const char* key, const char* text) {
    const json* value = given(from, key);
    return value && *value == text;
}

double number(const json& from, const char* key, double otherwise, double least, double most) {
    const json* value = given(from, key);
    if (!value) return otherwise;
    if (!value->is_number()) throw bad_request(fmt::format("'{}' must be a number", key), key);
    const double x = value->get<double>();
    if (!(x >= least && x <= most))
        throw bad_request(fmt::format("'{}' must be from {} to {}, not {}", key, least, most, x), key);
    return x;
}

uint64_t whole(const json& from, const char* key, uint64_t otherwise, uint64_t least, uint64_t most) {
    const json* value = given(from, key);
    if (!value) return otherwise;
    if (!value->is_number_integer() || (!value->is_number_unsigned() && value->get<int64_t>() < 0))
        throw bad_request(fmt::format("'{}' must be a whole number", key), key);
    const auto x = value->get<uint64_t>();
    if (x < least || x > most)
        throw bad_request(fmt::format("'{}' must be from {} to {}, not {}", key, least, most, x), key);
    return x;
}

bool flag(const json& from, const char* key) {
    const json* value = given(from, key);
    if (value && !value->is_boolean()) throw bad_request(fmt::format("'{}' must be true or false", key), key);
    return value && value->get<bool>();
}

std::vector<std::string> texts(const json& value, const char* key, size_t most) {
    std::vector<std::string> out;
    const auto add = [&](const json& text) {
        if (!text.is_string())
            throw bad_request(fmt::format("'{}' must be a string or a list of strings", key), key);
        out.push_back(text.get<std::string>());
    };
    if (value.is_array())
        for (const json& text : value) add(text);
    else
        add(value);
    if (out.size() > most) throw bad_request(fmt::format("'{}' may have {} entries at most", key, most), key);
    std::erase(out, "");
    return out;
}

void parse_bias(const json& from, SamplingParams& sampling) {
    const json* bias = given(from, "logit_bias");
    if (!bias) return;
    if (!bias->is_object()) throw bad_request("'logit_bias' must be an object of token ids", "logit_bias");
    for (const auto& [id, value] : bias->items()) {
        const bool digits = !id.empty() && id.size() < 10 &&
                            std::all_of(id.begin(), id.end(), [](char c) { return c >= '0' && c <= '9'; });
        if (!digits || !value.is_number() || !(std::abs(value.get<double>()) <= 100))
            throw bad_request(
                fmt::format("'logit_bias' takes token ids with numbers from -100 to 100, not '{}'", id),
                "logit_bias");
        const auto by = value.get<float>(); // -100 bans, as OpenAI has it
        sampling.bias.emplace_back(static_cast<Token>(std::stoul(id)), by <= -100 ? -1e9f : by);
    }
}

SamplingParams parse_sampling(const json& from) {
    SamplingParams s;
    s.temperature = static_cast<float>(number(from, "temperature", 1, 0, 2));
    s.top_p = static_cast<float>(number(from, "top_p", 1, 0, 1));
    if (s.top_p == 0) s.temperature = 0, s.top_p = 1; // the most probable alone
    s.min_p = static_cast<float>(number(from, "min_p", 0, 0, 1));
    s.top_k = static_cast<uint32_t>(whole(from, "top_k", 0, 0, 1u << 30));
    s.presence_penalty = static_cast<float>(number(from, "presence_penalty", 0, -2, 2));
    s.frequency_penalty = static_cast<float>(number(from, "frequency_penalty", 0, -2, 2));
    s.repetition_penalty = static_cast<float>(number(from, "repeat_penalty", 1, 0.01, 100));
    s.seed =
        whole(from, "seed", std::numeric_limits<uint64_t>::max(), 0, std::numeric_limits<uint64_t>::max());
    parse_bias(from, s);
    return s;
}

// A message's content as one text: clients send lists of parts, too.
json flattened(json messages) {
    if (!messages.is_array() || messages.empty())
        throw bad_request("'messages' must be a list of at least one message", "messages");
    for (json& message : messages) {
        if (!message.is_object()) throw bad_request("every message must be an object", "messages");
        message.erase("name");
        const auto content = message.find("content");
        if (content == message.end() || !content->is_array()) continue;
        std::string text;
        for (const json& part : *content) {
            if (!part.is_object() || !says(part, "type", "text") || !part.contains("text") ||
                !part["text"].is_string())
                throw bad_request("this model takes parts of the type 'text' alone", "messages");
            text += part["text"].get<std::string>();
        }
        *content = text;
    }
    return messages;
}

void refuse(const json& from, const char* key, const std::string& why) {
    if (given(from, key)) throw bad_request(fmt::format("'{}' is not supported: {}", key, why), key);
}

// What of `tools` and `tool_choice` the conversation is to say, and the answer to hold. `ordered`: the
// request with its keys in their order, which the prompt and the answer keep.
void parse_tools(const json& from, const ordered_json& ordered, ordered_json& conversation,
                 CompletionRequest& request) {
    refuse(from, "functions", "'tools' is the name of it now");
    const json* tools = given(from, "tools");
    if (tools && !tools->is_array()) throw bad_request("'tools' must be a list", "tools");
    const bool any = tools && !tools->empty();
    const json choice = from.value("tool_choice", json());
    if (choice.is_null() || choice == "auto" || choice == "none" || choice == "required") {
        if (choice == "none" || (!any && choice != "required")) return; // the model is not told of them
        if (choice == "required") request.must_call = "";
    } else {
        const json* function = choice.is_object() ? given(choice, "function") : nullptr;
        const json* name = function && function->is_object() ? given(*function, "name") : nullptr;
        if (!name || !name->is_string())
            throw bad_request("'tool_choice' is none, auto, required, or an object that names a function",
                              "tool_choice");
        request.must_call = name->get<std::string>();
    }
    if (!any) throw bad_request("'tool_choice' asks for a call, and there are no tools", "tools");
    conversation["tools"] = ordered["tools"];
    request.calls = true;
}

void parse_response_format(const json& from, const ordered_json& ordered, CompletionRequest& request) {
    const json* format = given(from, "response_format");
    if (!format) return;
    const auto wrong = [](const std::string& what) { return bad_request(what, "response_format"); };
    if (!format->is_object()) throw wrong("'response_format' must be an object");
    const ordered_json& asked = ordered["response_format"];
    if (says(*format, "type", "text")) return;
    if (request.calls) throw wrong("'response_format' and 'tools' exclude each other");
    try {
        if (says(*format, "type", "json_object")) {
            request.grammar =
                given(*format, "schema") ? json_schema_grammar(asked["schema"]) : json_object_grammar();
        } else if (says(*format, "type", "json_schema")) {
            const json* inner = given(*format, "json_schema");
            if (!inner || !inner->is_object() || !given(*inner, "schema"))
                throw wrong("'response_format' needs a 'json_schema' with a 'schema'");
            request.grammar = json_schema_grammar(asked["json_schema"]["schema"]);
        } else {
            throw wrong("'response_format' has the type text, json_object or json_schema");
        }
    } catch (const Error& error) {
        throw wrong(error.what());
    } catch (const json::exception& error) { // of a keyword of another type
        throw wrong(fmt::format("'response_format': {}", json_reason(error.what())));
    }
}

void parse_chat(const json& from, const ordered_json& ordered, CompletionRequest& request) {
    ordered_json conversation{{"messages", flattened(from.value("messages", json()))},
                              {"add_generation_prompt", true}};
    parse_tools(from, ordered, conversation, request);
    if (const json* thinking = given(from, "thinking")) conversation["thinking"] = *thinking;
    if (const json* template_options = given(from, "chat_template_kwargs"))
        if (const json* thinking = given(*template_options, "thinking")) conversation["thinking"] = *thinking;
    try {
        request.conversation = parse_conversation(
            conversation.dump(-1, ' ', false, ordered_json::error_handler_t::replace), "the request");
    } catch (const Error& error) {
        throw bad_request(error.what(), "messages");
    }
    request.logprobs = flag(from, "logprobs");
    request.top_logprobs = static_cast<uint32_t>(whole(from, "top_logprobs", 0, 0, 20));
    if (request.top_logprobs != 0 && !request.logprobs)
        throw bad_request("'top_logprobs' needs 'logprobs': true", "top_logprobs");
}

void parse_text(const json& from, CompletionRequest& request) {
    const json* prompt = given(from, "prompt");
    if (!prompt) throw bad_request("'prompt' is missing", "prompt");
    if (prompt->is_array() && !prompt->empty() && (*prompt)[0].is_number()) {
        for (const json& token : *prompt) {
            if (!token.is_number_unsigned() || token.get<uint64_t>() > std::numeric_limits<Token>::max())
                throw bad_request("'prompt' must hold token ids alone", "prompt");
            request.prompt_tokens.push_back(static_cast<Token>(token.get<uint64_t>()));
        }
    } else {
        const std::vector<std::string> prompts = texts(*prompt, "prompt", 1);
        request.prompt = prompts.empty() ? "" : prompts[0];
    }
    request.top_logprobs = static_cast<uint32_t>(whole(from, "logprobs", 0, 0, 20));
    request.logprobs = given(from, "logprobs") != nullptr;
    request.echo = flag(from, "echo");
    refuse(from, "suffix", "the model writes forward");
}

} // namespace

CompletionRequest parse_completion(const std::string& body, bool chat) {
    json from;
    try {
        from = parse_json(body, "the body");
    } catch (const Error& error) {
        throw bad_request(error.what(), "");
    }
    if (!from.is_object()) throw bad_request("the body must be a JSON object", "");
    CompletionRequest request;
    request.chat = chat;
    const ordered_json ordered = ordered_json::parse(body);
    if (chat)
        parse_chat(from, ordered, request);
    else
        parse_text(from, request);
    request.sampling = parse_sampling(from);
    const char* limit = given(from, "max_completion_tokens") ? "max_completion_tokens" : "max_tokens";
    request.max_tokens = static_cast<uint32_t>(whole(from, limit, chat ? 0 : 16, 0, 1u << 30));
    request.n = static_cast<uint32_t>(whole(from, "n", 1, 1, 16));
    if (const json* stop = given(from, "stop")) request.stop = texts(*stop, "stop", 16);
    request.stream = flag(from, "stream");
    request.cache_prompt = !given(from, "cache_prompt") || flag(from, "cache_prompt");
    if (const json* options = given(from, "stream_options")) {
        if (!options->is_object()) throw bad_request("'stream_options' must be an object", "stream_options");
        request.stream_usage = flag(*options, "include_usage");
    }
    parse_response_format(from, ordered, request);
    return request;
}

namespace {

json base(const Header& header, const char* object) {
    return {{"id", header.id},
            {"object", object},
            {"created", header.created},
            {"model", header.model},
            {"system_fingerprint", "fathom"}};
}

json bytes_of(const std::string& text) {
    json bytes = json::array();
    for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
    return bytes;
}

json logprobs_of(const Header& header, const Choice& choice) {
    if (!header.logprobs) return nullptr;
    if (header.chat) {
        json content = json::array();
        for (const TokenLogprob& token : choice.logprobs) {
            json top = json::array();
            for (const auto& [text, logprob] : token.top)
                top.push_back({{"token", text}, {"logprob", logprob}, {"bytes", bytes_of(text)}});
            content.push_back({{"token", token.text},
                               {"logprob", token.logprob},
                               {"bytes", bytes_of(token.text)},
                               {"top_logprobs", top}});
        }
        return {{"content", content}};
    }
    json tokens = json::array(), values = json::array(), top = json::array();
    for (const TokenLogprob& token : choice.logprobs) {
        tokens.push_back(token.text), values.push_back(token.logprob);
        json each = json::object();
        for (const auto& [text, logprob] : token.top) each[text] = logprob;
        top.push_back(each);
    }
    return {{"tokens", tokens}, {"token_logprobs", values}, {"top_logprobs", top}};
}

json reason_of(const Choice& choice) {
    return choice.finish_reason.empty() ? json() : json(choice.finish_reason);
}

json calls_of(const Header& header, size_t choice, const std::vector<ToolCall>& calls, bool pieces) {
    json list = json::array();
    for (size_t i = 0; i < calls.size(); ++i) {
        const std::string id =
            calls[i].id.empty() ? fmt::format("call_{}_{}_{}", header.id, choice, i) : calls[i].id;
        json call{{"id", id},
                  {"type", "function"},
                  {"function", {{"name", calls[i].name}, {"arguments", calls[i].arguments}}}};
        if (pieces) call["index"] = i;
        list.push_back(std::move(call));
    }
    return list;
}

json usage_of(const Usage& usage) {
    return {{"prompt_tokens", usage.prompt},
            {"completion_tokens", usage.completion},
            {"total_tokens", usage.prompt + usage.completion},
            {"prompt_tokens_details", {{"cached_tokens", usage.cached}}}};
}

} // namespace

json answer(const Header& header, const std::vector<Choice>& choices, const Usage& usage) {
    json out = base(header, header.chat ? "chat.completion" : "text_completion");
    for (size_t i = 0; i < choices.size(); ++i) {
        json choice{{"index", i},
                    {"logprobs", logprobs_of(header, choices[i])},
                    {"finish_reason", reason_of(choices[i])}};
        if (header.chat) {
            choice["message"] = {{"role", "assistant"}, {"content", choices[i].text}};
            json& message = choice["message"];
            if (!choices[i].reasoning.empty()) message["reasoning_content"] = choices[i].reasoning;
            if (!choices[i].calls.empty()) {
                message["tool_calls"] = calls_of(header, i, choices[i].calls, false);
                if (choices[i].text.empty()) message["content"] = nullptr;
            }
        } else {
            choice["text"] = choices[i].text;
        }
        out["choices"].push_back(choice);
    }
    out["usage"] = usage_of(usage);
    return out;
}

json piece(const Header& header, size_t index, const Choice& choice, bool first) {
    json out = base(header, header.chat ? "chat.completion.chunk" : "text_completion");
    json entry{
        {"index", index}, {"logprobs", logprobs_of(header, choice)}, {"finish_reason", reason_of(choice)}};
    if (header.chat) {
        json delta = json::object();
        if (first) delta["role"] = "assistant";
        if (first || !choice.text.empty()) delta["content"] = choice.text;
        if (!choice.reasoning.empty()) delta["reasoning_content"] = choice.reasoning;
        if (!choice.calls.empty()) delta["tool_calls"] = calls_of(header, index, choice.calls, true);
        entry["delta"] = delta;
    } else {
        entry["text"] = choice.text;
    }
    out["choices"] = json::array({entry});
    return out;
}

json usage_piece(const Header& header, const Usage& usage) {
    json out = base(header, header.chat ? "chat.completion.chunk" : "text_completion");
    out["choices"] = json::array();
    out["usage"] = usage_of(usage);
    return out;
}

} // namespace fathom::server
