#include "session/tuning.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "gpu/modules.h"
#include "session/engine_impl.h"

#include <cstdlib>
#include <set>

namespace fathom {

namespace {

// Of all kernels of this program: with other ones, everything is to be found out anew.
std::string program_hash() {
    static const std::string hash = [] {
        uint64_t sum = FNV1A_START;
        for (const gpu::Module& module : gpu::modules()) sum = fnv1a(sum, std::as_bytes(module.words));
        return fmt::format("{:016x}", sum);
    }();
    return hash;
}

std::filesystem::path path_of(const gpu::DeviceInfo& device) {
    const std::filesystem::path folder = gpu::cache_folder();
    return folder.empty() ? folder : folder / fmt::format("tuning-{}.json", device.cache_key);
}

template <class Value> Value by_name(std::span<const Value> all, const std::string& name) {
    for (const Value& value : all)
        if (name_of(value) == name) return value;
    throw Error({.what = "a name that this program does not know", .got = printable(name)});
}

nlohmann::json to_json(const Trial& t) {
    return {{"kernel", t.product.kernel},
            {"format", name_of(t.product.format)},
            {"n_out", t.product.n_out},
            {"n_in", t.product.n_in},
            {"prefill", t.product.prefill},
            {"tier", name_of(t.variant.tier)},
            {"lanes", t.variant.lanes},
            {"seconds", t.seconds},
            {"error", t.error},
            {"failure", t.failure},
            {"chosen", t.chosen}};
}

Trial trial_from(const nlohmann::json& json) {
    Trial t;
    t.product = {
        json.at("kernel").get<std::string>(), by_name<Format>(FORMATS, json.at("format").get<std::string>()),
        json.at("n_out").get<uint32_t>(), json.at("n_in").get<uint32_t>(), json.at("prefill").get<bool>()};
    t.variant = {by_name<Tier>(TIERS, json.at("tier").get<std::string>()), json.at("lanes").get<uint32_t>()};
    t.seconds = json.at("seconds").get<double>();
    t.error = json.at("error").get<double>();
    t.failure = json.at("failure").get<std::string>();
    t.chosen = json.at("chosen").get<bool>();
    return t;
}

bool is_tier(const std::string& name) {
    return std::any_of(std::begin(TIERS), std::end(TIERS), [&](Tier tier) { return name_of(tier) == name; });
}

// What is known, with what was found in the place of older trials of the same products.
std::vector<Trial> merged(std::vector<Trial> known, const std::vector<Trial>& found) {
    std::set<Product> products;
    for (const Trial& trial : found) products.insert(trial.product);
    std::erase_if(known, [&](const Trial& old) { return products.contains(old.product); });
    known.insert(known.end(), found.begin(), found.end());
    return known;
}

void report(const std::vector<Trial>& trials) {
    for (const Trial& t : trials)
        if (!t.failure.empty())
            log::warning("the {} kernel of {} is wrong on this device and not used: {}", t.variant.text(),
                         t.product.text(), t.failure);
        else
            log::detail("{}: {} {:.1f} us, error {:.0e}{}", t.product.text(), t.variant.text(),
                        t.seconds * 1e6, t.error, t.chosen ? ", chosen" : "");
}

} // namespace

void check_tier_option(const std::string& option) {
    if (option == "auto" || option == "tune" || is_tier(option)) return;
    throw Error({.what = "no such tier of kernels",
                 .where = "tier",
                 .expected = "auto, tune, base, int8, tiled, half or matrix",
                 .got = printable(option),
                 .fix = "choose another --tier"});
}

namespace {

// What the costs of a model's attention depend on, beside device and program.
std::string attention_key(const Model& model, uint32_t rows) {
    const ModelConfig& c = model.config;
    return fmt::format("{} heads of {} + {}, {}, latent {}, cache {}, {} rows", c.n_heads, c.qk_nope_head_dim,
                       c.qk_rope_head_dim, c.v_head_dim, c.kv_lora_rank, name_of(model.cache_format), rows);
}

nlohmann::json to_json(const AttentionCosts& c) {
    return {{"expand_row", c.expand_row},
            {"expanded_pair", c.expanded_pair},
            {"absorb_row", c.absorb_row},
            {"absorbed_pair", c.absorbed_pair}};
}

AttentionCosts costs_from(const nlohmann::json& json) {
    return {json.at("expand_row").get<double>(), json.at("expanded_pair").get<double>(),
            json.at("absorb_row").get<double>(), json.at("absorbed_pair").get<double>()};
}

void tune_tiers(Model& model, Executor& executor, bool anew, const std::vector<StepRow>& rows,
                const std::function<void(size_t, size_t)>& progress, Tuning& tuning) {
    const gpu::DeviceInfo& device = executor.gpu()->info();
    const char* wrong = std::getenv("FATHOM_WRONG_TIER");
    const Tuning known = tuning;
    const auto save = [&](const std::vector<Trial>& found) {
        tuning.trials = merged(known.trials, found);
        remember_tuning(device, tuning);
    };
    const std::vector<Trial> found = tune(model, executor, rows, anew ? std::vector<Trial>() : known.trials,
                                          {.progress = progress, .save = save, .wrong = wrong ? wrong : ""});
    report(found);
    if (!found.empty()) save(found);
    model.set_tiers(tiers_of(tuning.trials));
}

} // namespace

Tuning remembered_tuning(const gpu::DeviceInfo& device) try {
    const std::filesystem::path path = path_of(device);
    std::error_code error;
    if (path.empty() || !std::filesystem::exists(path, error)) return {};
    const nlohmann::json json = parse_json(read_file(path, 16u << 20), path.string());
    Tuning tuning;
    if (json.at("program") != program_hash()) return {};
    for (const nlohmann::json& one : json.at("trials")) tuning.trials.push_back(trial_from(one));
    for (const auto& [key, costs] : json.at("attention").items())
        tuning.attention.emplace(key, costs_from(costs));
    return tuning;
} catch (const std::exception& error) { // costs the time of tuning, no more
    log::detail("what was known of this device's kernels is ignored: {}", error.what());
    return {};
}

void remember_tuning(const gpu::DeviceInfo& device, const Tuning& tuning) try {
    const std::filesystem::path path = path_of(device);
    if (path.empty()) return;
    nlohmann::json trials = nlohmann::json::array(), attention = nlohmann::json::object();
    for (const Trial& trial : tuning.trials) trials.push_back(to_json(trial));
    for (const auto& [key, costs] : tuning.attention) attention[key] = to_json(costs);
    std::filesystem::create_directories(path.parent_path());
    AtomicFile file(path);
    file.write(
        nlohmann::json{{"program", program_hash()}, {"trials", trials}, {"attention", attention}}.dump(1));
    file.commit();
} catch (const std::exception& error) { // as above, at the next start
    log::detail("what was found of this device's kernels is not saved: {}", error.what());
}

AttentionCosts choose_kernels_for(Model& model, Executor& executor, const std::string& option,
                                  const std::vector<StepRow>& rows,
                                  const std::function<void(size_t, size_t)>& progress) {
    check_tier_option(option);
    const AttentionCosts counted = counted_costs(model.config);
    if (is_tier(option)) {
        model.set_tiers(Tiers(by_name<Tier>(TIERS, option)));
        return counted;
    }
    // On a software device trying takes longer than what could be gained: base, unless it is asked for.
    if (!executor.gpu() || (executor.caps().cpu && option == "auto")) return counted;
    const bool anew = option == "tune";
    Tuning tuning = remembered_tuning(executor.gpu()->info());
    tune_tiers(model, executor, anew, rows, progress, tuning);
    const std::string key = attention_key(model, static_cast<uint32_t>(rows.size()));
    if (const auto it = tuning.attention.find(key); it != tuning.attention.end() && !anew) return it->second;
    const std::optional<AttentionCosts> costs = measured_costs(model, executor, rows);
    if (!costs) return counted;
    tuning.attention[key] = *costs;
    remember_tuning(executor.gpu()->info(), tuning);
    return *costs;
}

} // namespace fathom
