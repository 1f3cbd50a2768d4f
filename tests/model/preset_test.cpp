// Presets: every file of models/presets, against the published config.json where there is one, and what is
// refused.
#include "base/error.h"
#include "golden/golden.h"
#include "model/preset.h"

#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

using namespace fathom;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

std::string refusal(const json& preset) {
    try {
        parse_preset(preset.dump(), "test");
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

// Without what a preset leaves out.
ModelConfig shape_of(ModelConfig config) {
    config.bos.clear();
    config.eos.clear();
    return config;
}

} // namespace

TEST_CASE("preset: every file is part of the program, under names of its own") {
    std::set<std::string> names;
    for (const Preset& preset : presets()) {
        CHECK(!preset.about.empty());
        CHECK(names.insert(preset.name).second);
        for (const std::string& also : preset.also) CHECK(names.insert(also).second);
        CHECK(find_preset(preset.name) == &preset);
    }
    for (const auto& entry : fs::directory_iterator(fs::path(FATHOM_SOURCE_DIR) / "models/presets"))
        CHECK(names.contains(entry.path().stem().string()));
    CHECK(find_preset("r1") == find_preset("v3"));
    CHECK(!find_preset("v9"));
}

TEST_CASE("preset: shapes are those of the published files") {
    const auto tiny = golden::read_text(fs::path(FATHOM_SOURCE_DIR) / "models/tiny/config.json");
    CHECK(shape_of(parse_config(tiny, "tiny")) == find_preset("tiny")->config);
    const fs::path folder = fs::path(FATHOM_SHARED_DIR) / "data/configs/hf";
    if (!fs::exists(folder)) {
        MESSAGE("SKIPPED: no " << folder.string() << "; this test proves nothing here");
        return;
    }
    for (const auto& [name, file] : {std::pair("v3", "DeepSeek-V3"),
                                     {"r1", "DeepSeek-R1"},
                                     {"v2-lite", "DeepSeek-V2-Lite"},
                                     {"kimi-k2", "Kimi-K2-Instruct"}}) {
        INFO(name);
        const auto text = golden::read_text(folder / (std::string(file) + ".config.json"));
        CHECK(shape_of(parse_config(text, file)) == find_preset(name)->config);
    }
}

TEST_CASE("preset: every key is needed, and none is unknown") {
    for (const char* name : {"v3", "moe-16b"}) {
        const json good = json::parse(golden::read_text(fs::path(FATHOM_SOURCE_DIR) / "models/presets" /
                                                        (std::string(name) + ".json")));
        CHECK(refusal(good) == "");
        for (const auto& [key, value] : good.items()) {
            json bad = good;
            bad.erase(key);
            CHECK(refusal(bad).find("test: " + key) != std::string::npos);
        }
        json more = good;
        more["hidden_size"] = 1;
        CHECK(refusal(more).find("hidden_size") != std::string::npos);
    }
    json v3 = json::parse(golden::read_text(fs::path(FATHOM_SOURCE_DIR) / "models/presets/v3.json"));
    for (const auto& [key, value] : v3["yarn"].items()) {
        json bad = v3;
        bad["yarn"].erase(key);
        CHECK(refusal(bad).find(key) != std::string::npos);
    }
    v3["dim"] = -1;
    CHECK(refusal(v3).find("-1") != std::string::npos);
    v3["architecture"] = "deepseek_v4";
    CHECK(refusal(v3).find("deepseek_v4") != std::string::npos);
    CHECK(refusal(json::array()).find("an object") != std::string::npos);
}
