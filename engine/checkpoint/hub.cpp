// Names in the cache of Hugging Face's tools; see hub.h.
#include "checkpoint/hub.h"

#include "base/error.h"
#include "base/file.h"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <vector>

namespace fathom {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view alphanumeric = "0123456789abcdefghijklmnopqrstuvwxyz"
                                          "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
constexpr size_t longest_name = 96, longest_revision = 255, commit_digits = 40;

// One part of a name by the hub's rules, which keep it within its folder: neither ".." nor "--" is in it.
bool is_part(std::string_view part) {
    return !part.empty() && part.size() <= longest_name &&
           part.find_first_not_of(std::string(alphanumeric) + "-_.") == part.npos &&
           std::string_view("-.").find(part.front()) == std::string_view::npos &&
           std::string_view("-.").find(part.back()) == std::string_view::npos &&
           part.find("--") == part.npos && part.find("..") == part.npos;
}

// A branch, a tag or a commit, whose slashes ("refs/pr/1") lead nowhere but down.
bool is_revision(std::string_view revision) {
    if (revision.size() > longest_revision) return false;
    for (size_t start = 0; start <= revision.size();) {
        const size_t slash = std::min(revision.find('/', start), revision.size());
        const std::string_view part = revision.substr(start, slash - start);
        if (part.empty() || part.front() == '.') return false;
        if (part.find_first_not_of(std::string(alphanumeric) + "-_.+") != part.npos) return false;
        start = slash + 1;
    }
    return true;
}

bool is_commit(std::string_view text) {
    return text.size() == commit_digits && text.find_first_not_of("0123456789abcdef") == text.npos;
}

bool present(const fs::path& path) {
    std::error_code ignored; // what cannot be looked at is an error of who opens it
    return fs::exists(path, ignored);
}

fs::path hub_cache() {
    const auto set = [](const char* variable) -> std::optional<fs::path> {
        const char* value = std::getenv(variable);
        return value && *value ? std::optional<fs::path>(value) : std::nullopt;
    };
    if (const auto cache = set("HF_HUB_CACHE")) return *cache;
    if (const auto home = set("HF_HOME")) return *home / "hub";
    if (const auto cache = set("XDG_CACHE_HOME")) return *cache / "huggingface" / "hub";
    return set("HOME").value_or("/") / ".cache" / "huggingface" / "hub";
}

// A model of the cache: what its errors have in common.
struct Cached {
    std::string name; // "ORG/NAME"
    fs::path folder;

    [[noreturn]] void refuse(std::string what, std::string expected, std::string got, std::string fix) const {
        throw Error({.what = std::move(what),
                     .where = fmt::format("{} in {}", name, printable(folder.parent_path().string(), 4096)),
                     .expected = std::move(expected),
                     .got = std::move(got),
                     .fix = std::move(fix)});
    }
    std::string download(std::string_view revision) const {
        return fmt::format("fetch it: hf download {}{}{}", name, revision.empty() ? "" : " --revision ",
                           revision);
    }
};

// The commits there are files of, in order.
std::vector<std::string> commits_of(const Cached& model) {
    std::vector<std::string> commits;
    std::error_code absent;
    for (const auto& entry : fs::directory_iterator(model.folder / "snapshots", absent))
        if (std::string name = entry.path().filename().string(); is_commit(name)) commits.push_back(name);
    std::sort(commits.begin(), commits.end());
    return commits;
}

std::string list_of(const std::vector<std::string>& commits) {
    constexpr size_t shown = 8;
    std::string text;
    for (size_t i = 0; i < std::min(commits.size(), shown); ++i) text += (i ? ", " : "") + commits[i];
    return text + (commits.size() > shown ? ", ..." : "");
}

std::string commit_of(const Cached& model, std::string_view revision) {
    if (is_commit(revision)) return std::string(revision);
    const fs::path ref = model.folder / "refs" / (revision.empty() ? "main" : revision);
    if (present(ref)) {
        std::string commit = read_file(ref, 256);
        while (commit.ends_with('\n') || commit.ends_with('\r')) commit.pop_back();
        if (!is_commit(commit))
            model.refuse("damaged cache", fmt::format("a commit in {}", printable(ref.string(), 4096)),
                         printable(commit), model.download(revision));
        return commit;
    }
    const auto commits = commits_of(model);
    if (!revision.empty())
        model.refuse("revision not in the cache", fmt::format("refs/{}", revision),
                     commits.empty() ? "no revision" : "commits " + list_of(commits),
                     model.download(revision));
    if (commits.size() > 1)
        model.refuse("several revisions in the cache", "refs/main, or one revision", list_of(commits),
                     fmt::format("choose: {}@{}", model.name, commits.front()));
    if (commits.empty())
        model.refuse("incomplete in the cache", "refs/main and its files", "no files", model.download(""));
    return commits.front();
}

fs::path complete_snapshot(const Cached& model, std::string_view revision) {
    const std::string commit = commit_of(model, revision);
    const fs::path snapshot = model.folder / "snapshots" / commit;
    std::error_code failed;
    if (!fs::is_directory(snapshot, failed))
        model.refuse(is_commit(revision) ? "revision not in the cache" : "incomplete in the cache",
                     "the files of commit " + commit, "none", model.download(revision));
    for (const auto& entry : fs::directory_iterator(snapshot, failed))
        if (!present(entry.path()))
            model.refuse("incomplete in the cache", "every file of commit " + commit,
                         printable(entry.path().filename().string()) + " leads to nothing",
                         model.download(revision));
    if (failed) model.refuse("unreadable cache", "a folder", failed.message(), "check its permissions");
    return snapshot;
}

} // namespace

fs::path find_model(std::string_view model) {
    if (present(model)) return model;
    const size_t at = std::min(model.find('@'), model.size()), slash = model.find('/');
    if (slash >= at) return model;
    const std::string_view org = model.substr(0, slash), name = model.substr(slash + 1, at - slash - 1);
    if (!is_part(org) || !is_part(name)) return model;
    const Cached cached{.name = fmt::format("{}/{}", org, name),
                        .folder = hub_cache() / fmt::format("models--{}--{}", org, name)};
    const std::string_view revision = at < model.size() ? model.substr(at + 1) : "";
    if (at < model.size() && !is_revision(revision))
        cached.refuse("not a revision", "a branch, a tag or a commit", printable(revision),
                      "name one after the @, or leave it out for main");
    if (!present(cached.folder))
        cached.refuse("no such model", "a path, or a model that was downloaded before", "neither",
                      "check the path, or " + cached.download(revision));
    return complete_snapshot(cached, revision);
}

std::optional<std::string> name_in_hub(const fs::path& folder) {
    const fs::path model = folder.parent_path().parent_path();
    const std::string text = model.filename().string(), prefix = "models--";
    if (folder.parent_path().filename() != "snapshots" || !text.starts_with(prefix)) return std::nullopt;
    const size_t split = text.find("--", prefix.size());
    if (split == text.npos) return std::nullopt;
    const std::string org = text.substr(prefix.size(), split - prefix.size()), name = text.substr(split + 2);
    return is_part(org) && is_part(name) ? std::optional(org + "/" + name) : std::nullopt;
}

} // namespace fathom
