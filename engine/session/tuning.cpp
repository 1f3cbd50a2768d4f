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
    return {{"kernel", t.product.kernel},   {"format", name_of(t.product.format)},
            {"n_out", t.product.n_out},     {"n_in", t.product.n_in},
            {"prefill", t.product.prefill}, {"tier", name_of(t.tier)},
            {"seconds", t.seconds},         {"error", t.error},
            {"failure", t.failure},         {"chosen", t.chosen}};
}

Trial trial_from(const nlohmann::json& json) {
    Trial t;
    t.product = {
        json.at("kernel").get<std::string>(), by_name<Format>(FORMATS, json.at("format").get<std::string>()),
        json.at("n_out").get<uint32_t>(), json.at("n_in").get<uint32_t>(), json.at("prefill").get<bool>()};
    t.tier = by_name<Tier>(TIERS, json.at("tier").get<std::string>());
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
            log::warning("the {} kernel of {} is wrong on this device and not used: {}", name_of(t.tier),
                         t.product.text(), t.failure);
        else
            log::detail("{}: {} {:.1f} us, error {:.0e}{}", t.product.text(), name_of(t.tier),
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

std::vector<Trial> remembered_trials(const gpu::DeviceInfo& device) try {
    const std::filesystem::path path = path_of(device);
    std::error_code error;
    if (path.empty() || !std::filesystem::exists(path, error)) return {};
    const nlohmann::json json = parse_json(read_file(path, 16u << 20), path.string());
    std::vector<Trial> trials;
    if (json.at("program") != program_hash()) return trials;
    for (const nlohmann::json& one : json.at("trials")) trials.push_back(trial_from(one));
    return trials;
} catch (const std::exception& error) { // costs the time of tuning, no more
    log::detail("what was known of this device's kernels is ignored: {}", error.what());
    return {};
}

void remember_trials(const gpu::DeviceInfo& device, const std::vector<Trial>& trials) try {
    const std::filesystem::path path = path_of(device);
    if (path.empty()) return;
    nlohmann::json list = nlohmann::json::array();
    for (const Trial& trial : trials) list.push_back(to_json(trial));
    std::filesystem::create_directories(path.parent_path());
    AtomicFile file(path);
    file.write(nlohmann::json{{"program", program_hash()}, {"trials", list}}.dump(1));
    file.commit();
} catch (const std::exception& error) { // as above, at the next start
    log::detail("what was found of this device's kernels is not saved: {}", error.what());
}

void choose_tiers(Model& model, Executor& executor, const std::string& option,
                  const std::vector<StepRow>& rows, const std::function<void(size_t, size_t)>& progress) {
    check_tier_option(option);
    if (is_tier(option)) return model.set_tiers(Tiers(by_name<Tier>(TIERS, option)));
    // On a software device trying takes longer than what could be gained: base, unless it is asked for.
    if (!executor.gpu() || (executor.caps().cpu && option == "auto")) return;
    const gpu::DeviceInfo& device = executor.gpu()->info();
    const char* wrong = std::getenv("FATHOM_WRONG_TIER");
    const std::vector<Trial> known = remembered_trials(device);
    const std::vector<Trial> found =
        tune(model, executor, rows, option == "tune" ? std::vector<Trial>() : known,
             {.progress = progress,
              .save = [&](const auto& so_far) { remember_trials(device, merged(known, so_far)); },
              .wrong = wrong ? wrong : ""});
    report(found);
    const std::vector<Trial> all = merged(known, found);
    if (!found.empty()) remember_trials(device, all);
    model.set_tiers(tiers_of(all));
}

} // namespace fathom
